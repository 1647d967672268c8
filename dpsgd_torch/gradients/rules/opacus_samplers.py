"""Per-example gradients by Opacus's grad samplers, with what they need put right around them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from dpsgd_torch.gradients.capture import Use
from dpsgd_torch.gradients.rules.base import LayerRule, PerParameter

_NAMES = {"weight", "bias"}


@functools.cache
def samplers() -> dict[type[nn.Module], Callable[..., PerParameter]]:
    """Opacus's registry, by layer type; it is loaded late, which takes a second."""
    from opacus.grad_sample import GradSampleModule

    registry: dict[type[nn.Module], Callable[..., PerParameter]] = GradSampleModule.GRAD_SAMPLERS
    return registry


def is_made_of_layers(layer: nn.Module) -> bool:
    """Whether it is a recurrent network of Opacus's: its parameters are those of layers inside."""
    from opacus.layers.dp_rnn import DPGRU, DPLSTM, DPRNN

    return type(layer) in (DPRNN, DPLSTM, DPGRU)


class OpacusRule(LayerRule):
    """Opacus's grad sampler of the layer's type, also one that was registered there."""

    def refusal(self, layer: nn.Module) -> str:
        names = [name for name, p in layer.named_parameters(recurse=False) if p.requires_grad]
        if set(names) <= _NAMES:
            return ""
        return (
            f"holds {', '.join(names)}, for which its type has no per-example gradients; keep "
            "them in a module of their own"
        )

    def per_example(self, use: Use, delta: torch.Tensor) -> PerParameter:
        x = use.x.contiguous()
        x = x.to(delta.dtype) if x.is_floating_point() else x
        return self.sampled(use.layer, x, delta)

    def sampled(self, layer: nn.Module, x: torch.Tensor, delta: torch.Tensor) -> PerParameter:
        """The sampler's answer; ``x`` is contiguous and, if not of whole numbers, delta's type."""
        return samplers()[type(layer)](layer, [x], delta)
