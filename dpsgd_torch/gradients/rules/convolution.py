"""nn.Conv1d, Conv2d, Conv3d: Opacus's grad samplers, on inputs that are padded beforehand."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dpsgd_torch.gradients.rules.base import PerParameter
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import register


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class ConvolutionRule(OpacusRule):
    """Opacus's know zeros around an input alone."""

    def sampled(self, layer: Any, x: torch.Tensor, delta: torch.Tensor) -> PerParameter:
        if layer.padding_mode != "zeros":
            x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
            layer = copy.copy(layer)  # the same parameters
            layer.padding = (0,) * len(layer.kernel_size)
        return super().sampled(layer, x, delta)
