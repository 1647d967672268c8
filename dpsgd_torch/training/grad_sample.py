"""Per-example gradients by Opacus's hooks, without the copy that it makes of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from torch import nn

from dpsgd_torch.training.losses import Loss
from dpsgd_torch.training.steps import backward
from dpsgd_torch.training.vectors import Stored, unreached


class PerExampleGradients(GradSampleModule):  # type: ignore[misc]
    """Opacus's GradSampleModule; a layer used once a pass hands its gradients over as they are.

    Opacus copies each into a zeroed buffer, because a layer may be used again in the same pass
    or with a shorter batch; only then is that buffer needed.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, loss_reduction="sum", strict=False)

    def backward(self, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        return backward(self, loss, inputs, targets)

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Stored:
        for name, p in self._module.named_parameters():
            if p.requires_grad and getattr(p, "grad_sample", None) is None:
                raise unreached(name)
        return Stored(params, slots, weights)

    def capture_backprops_hook(
        self, module: Any, _input: Any, output_grads: Any, *args: Any, **kwargs: Any
    ) -> None:
        sampler = self.GRAD_SAMPLERS.get(type(module))
        own: list[Any] = [p for p in module.parameters() if p.requires_grad]
        used_once = all(
            p._forward_counter == 1
            and p.grad_sample is None
            and not hasattr(p, "_current_grad_sample")
            for p in own
        )
        if sampler is None or not self.hooks_enabled or not used_once:
            super().capture_backprops_hook(module, _input, output_grads, *args, **kwargs)
            return
        (activations,) = module.activations
        module.activations.clear()
        gradients = sampler(module, activations, output_grads[0].detach())
        for p in own:
            p.grad_sample = gradients[p]
            p._forward_counter = 0
