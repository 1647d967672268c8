"""nn.Embedding: Opacus's grad sampler, whole numbers of any kind, and a row of padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dpsgd_torch.gradients.rules.base import PerParameter
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import register


@register(nn.Embedding)
class EmbeddingRule(OpacusRule):
    """Opacus's, a dense table an example, without the row of padding."""

    def sampled(self, layer: Any, x: torch.Tensor, delta: torch.Tensor) -> PerParameter:
        gradients = super().sampled(layer, x.long(), delta)
        if layer.padding_idx is not None:
            gradients[layer.weight][:, layer.padding_idx] = 0
        return gradients
