"""nn.Linear: outer products of what came in and the gradient at what went out.

Norm and weighted sums follow from those two [Goodfellow 2015; Bu et al. 2023, "book-keeping"]. The
gradient of a sequence is a sum of T such products; its norm is that of T × T pairs, which pays
where they are fewer than the weight has entries [Li et al. 2022, "ghost clipping"].
"""

from __future__ import annotations

import math

import torch
from torch import nn

from dpsgd_torch.gradients.capture import Use
from dpsgd_torch.gradients.rules.base import ClosedForm, Sums
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import register
from dpsgd_torch.gradients.rules.slots import Slots

_AT_ONCE = 1 << 21  # values of sequences that are widened at once


class LinearForm(ClosedForm):
    """δ ⊗ x, and δ for the bias, summed over the steps of a sequence."""

    @classmethod
    def pays(cls, use: Use) -> bool:
        steps = math.prod(use.x.shape[1:-1])
        few = 0 < 2 * steps**2 <= use.layer.weight.numel()
        return use.x.ndim == 2 or (use.x.ndim > 2 and few)

    def squared_norms(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        if self.delta.ndim > 2:
            return self._of_sequences(slots)
        delta = slots.weighted(self.delta)
        squared, error = slots.paired(self.x, delta)
        if self.layer.bias is not None:
            squared = squared + slots.summed(delta).square().sum(1)
        return squared, error

    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        for rows in self._pieces():
            x, delta = self.x[rows].double(), self.delta[rows].double()
            delta = delta * factors[rows].view(-1, *(1,) * (delta.ndim - 1))
            x, delta = x.flatten(0, -2), delta.flatten(0, -2)
            sums[self.layer.weight].addmm_(delta.T, x)
            if self.layer.bias is not None:
                sums[self.layer.bias] += delta.sum(0)

    def _of_sequences(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        """In float64, since the terms of a sequence may cancel."""
        if slots.slots is not None:
            return self._of_shared(slots)
        parts = []
        for rows in self._pieces():
            x, delta = (v[rows].double().flatten(1, -2) for v in (self.x, self.delta))
            squared = ((x @ x.mT) * (delta @ delta.mT)).sum((1, 2)).clamp(min=0)
            if self.layer.bias is not None:
                squared += delta.sum(1).square().sum(1)
            parts.append(squared)
        squared = torch.cat(parts)
        if slots.weights is not None:
            squared = squared * slots.weights.double().square()
        squared = squared.to(self.delta.dtype)
        return squared, torch.zeros_like(squared)

    def _of_shared(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps of all sequences of a slot against each other."""
        steps = slots.repeated(math.prod(self.x.shape[1:-1]))
        x, delta = (v.double().flatten(0, -2) for v in (self.x, self.delta))
        delta = steps.weighted(delta)
        squared, error = steps.paired(x, delta)
        if self.layer.bias is not None:
            squared = squared + steps.summed(delta).square().sum(1)
        return squared.to(self.delta.dtype), error.to(self.delta.dtype)

    def _pieces(self) -> list[slice]:
        """All rows at once for single vectors; for sequences, so many as are widened at once."""
        size = len(self.x)
        if self.x.ndim > 2:
            values = self.x[0].numel() + self.delta[0].numel()
            size = max(1, _AT_ONCE // max(1, values))
        return [slice(start, start + size) for start in range(0, len(self.x), max(1, size))]


@register(nn.Linear)
class LinearRule(OpacusRule):
    """Opacus's, and closed forms."""

    closed_form = LinearForm
