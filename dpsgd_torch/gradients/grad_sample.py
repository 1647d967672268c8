"""Per-example gradients by hooks on layers: Opacus's grad samplers, with what they need put right.

The witness of the graph engine: it shares no rule with it, stores everything, and can be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dpsgd_torch.data.trees import Tree, length
from dpsgd_torch.gradients.capture import Capture, Use
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rules.base import checked
from dpsgd_torch.gradients.rules.registry import rule_of
from dpsgd_torch.gradients.trained_layers import layers_of
from dpsgd_torch.gradients.vectors import Stored, Vectors


class OpacusGradients:
    """The model with hooks that keep what each layer saw; each parameter gets ``grad_sample``.

    * Memory grows with examples × parameters.
    * Every use of a parameter adds to its gradients, also in layers that share it.
    * No gradient of a weight is computed for the batch as a whole: a pass goes back to the
      layers' outputs, and each layer's rule takes it from there.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._examples = model, 0
        self._capture = Capture(layers_of(model))

    def backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """Sum of the losses; what belongs to each example stays until ``vectors``."""
        self._examples = length(inputs)
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
            if delta is not None:
                dtype = next(use.layer.parameters()).dtype  # norms are not rounded to half
                self._take(use, delta.to(dtype))
        return float(total.detach())

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Vectors:
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

    def _take(self, use: Use, delta: torch.Tensor) -> None:
        rule = rule_of(use.layer)
        given = rule.per_example(use, delta.contiguous())
        for p, gradients in checked(given, use, rule, self._examples).items():
            if p.requires_grad:
                held = p.grad_sample
                p.grad_sample = gradients if held is None else held + gradients

    def _parameters(self) -> list[Any]:
        return [p for p in self._model.parameters() if p.requires_grad]
