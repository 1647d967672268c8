"""nn.Embedding: the gradient of a table is the sum of what comes back to each of its rows.

An example reaches the few rows of its own words, so norm and sum are taken over those, and no table
is written out for it: the Gram matrix of equal words [Bu et al. 2023], summed word by word.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dpsgd_torch.gradients.capture import Use
from dpsgd_torch.gradients.rules.base import ClosedForm, PerParameter, Sums
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import register
from dpsgd_torch.gradients.rules.slots import Slots


class EmbeddingForm(ClosedForm):
    """Σ δ over the places that hold a word, word by word."""

    names = frozenset({"weight"})

    def __init__(self, use: Use, delta: torch.Tensor) -> None:
        super().__init__(use, delta)
        count = len(self.x)
        self.x = self.x.reshape(count, -1).long()
        self.delta = delta.reshape(count, self.x.shape[1], delta.shape[-1])
        if self.layer.padding_idx is not None:
            padded = (self.x == self.layer.padding_idx)[..., None]
            self.delta = self.delta.masked_fill(padded, 0.0)

    @classmethod
    def pays(cls, use: Use) -> bool:
        """In any number of dimensions."""
        return use.x.numel() > 0

    def squared_norms(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        of, count = slots.slots, len(self.x)
        if of is None:
            of = torch.arange(count, device=self.x.device)
        else:
            count = int(of[-1]) + 1
        delta = self.delta.double()
        if slots.weights is not None:
            delta = delta * slots.weights[:, None, None]
        table = len(self.layer.weight)
        places = (of[:, None] * table + self.x).flatten()
        words, where = places.unique(return_inverse=True)
        sums = delta.new_zeros(len(words), delta.shape[-1])
        sums.index_add_(0, where, delta.flatten(0, 1))
        squared = delta.new_zeros(count).index_add_(0, words // table, sums.square().sum(1))
        squared = squared.to(self.delta.dtype)
        return squared, torch.zeros_like(squared)

    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        delta = self.delta.double() * factors[:, None, None]
        sums[self.layer.weight].index_add_(0, self.x.flatten(), delta.flatten(0, 1))


@register(nn.Embedding)
class EmbeddingRule(OpacusRule):
    """Opacus's, a dense table an example, without the row of padding; and closed forms."""

    closed_form = EmbeddingForm

    def sampled(self, layer: Any, x: torch.Tensor, delta: torch.Tensor) -> PerParameter:
        gradients = super().sampled(layer, x.long(), delta)
        if layer.padding_idx is not None:
            gradients[layer.weight][:, layer.padding_idx] = 0
        return gradients
