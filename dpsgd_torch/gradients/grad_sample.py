"""Per-example gradients by Opacus's rules, held as ``grad_sample`` of each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dpsgd_torch.gradients.capture import Capture
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rules import layers_of, per_example_gradients_of
from dpsgd_torch.gradients.vectors import Stored


class PerExampleGradients:
    """The model with hooks that keep what each layer saw; its parameters get ``grad_sample``.

    * Every use of a parameter adds to its gradients, also in layers that share it.
    * No gradient of a weight is computed for the batch as a whole: a pass goes back to the
      layers' outputs, and each layer's rule takes it from there.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._capture = Capture(layers_of(model))
        self._examples = 0

    def backward(self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Sum of the losses; the gradients of each example stay with the parameters."""
        self._examples = len(inputs)
        total, uses = self._capture.losses(self._model, loss, inputs, targets)
        for p in self._parameters():
            p.grad_sample = None
        edges = [use.edge for use in uses]
        deltas = list[torch.Tensor | None]()
        if edges:
            deltas.extend(torch.autograd.grad(total, edges, allow_unused=True))
        while uses:  # from the back, and forgotten one by one: memory holds less
            use, delta = uses.pop(), deltas.pop()
            use.refuse_overwritten()
            if delta is None:
                continue
            for p, gradients in per_example_gradients_of(use, delta).items():
                if p.requires_grad:
                    held = p.grad_sample
                    p.grad_sample = gradients if held is None else held + gradients
        return float(total.detach())

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Stored:
        for p in self._parameters():
            if p.grad_sample is None:  # not used in this pass
                p.grad_sample = p.detach().new_zeros(()).expand(self._examples, *p.shape)
        return Stored(params, slots, weights)

    def cleanup(self) -> None:
        """Take the hooks off again."""
        self._capture.remove()
        for p in self._parameters():
            if hasattr(p, "grad_sample"):
                del p.grad_sample

    def _parameters(self) -> list[Any]:
        return [p for p in self._model.parameters() if p.requires_grad]
