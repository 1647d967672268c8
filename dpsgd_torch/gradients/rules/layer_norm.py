"""nn.LayerNorm: Opacus's grad sampler where there is a bias."""

from __future__ import annotations

import torch
from torch import nn

from dpsgd_torch.gradients.capture import Use
from dpsgd_torch.gradients.rules.base import PerParameter
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import register
from dpsgd_torch.gradients.rules.vmap import run_again


@register(nn.LayerNorm)
class LayerNormRule(OpacusRule):
    """Opacus's, which needs a bias; without one the layer is run again."""

    def per_example(self, use: Use, delta: torch.Tensor) -> PerParameter:
        if use.layer.bias is None:
            return run_again(use, delta, inside=False)
        return super().per_example(use, delta)
