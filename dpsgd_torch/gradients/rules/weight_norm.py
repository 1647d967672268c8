"""WeightNormLinear: with u = x · v/‖v‖ and s = g/‖v‖, ∂g = δ u and ∂v = s (δ ⊗ x − ∂g v/‖v‖)."""

from __future__ import annotations

from typing import Self

import torch
from torch.nn import functional

from dpsgd_torch.gradients.capture import Use
from dpsgd_torch.gradients.rules.base import ClosedForm, LayerRule, Sums
from dpsgd_torch.gradients.rules.registry import register
from dpsgd_torch.gradients.rules.slots import Slots, rounding
from dpsgd_torch.layers import WeightNormLinear

_AT_ONCE = 64  # rows of a weight that are widened at once, so that they stay in the cache


class WeightNormForm(ClosedForm):
    """The part of x along v is taken out of ∂v: ‖∂v‖² = s² (δ² ‖x‖² − ∂g²), output by output."""

    names = frozenset({"weight_v", "weight_g", "bias"})
    inside = ("projection",)
    layer: WeightNormLinear

    def __init__(self, use: Use, delta: torch.Tensor) -> None:
        super().__init__(use, delta)
        self.u = use.inside["projection"].to(delta.dtype)

    def squared_norms(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        delta, scale = slots.weighted(self.delta), self._scale()
        along = slots.summed(delta * self.u)
        full, error = slots.paired(self.x, delta * scale)
        taken = (along * scale).square().sum(1)
        squared = full - taken + along.square().sum(1)
        squared = squared + slots.summed(delta).square().sum(1)
        if slots.slots is None:
            error = rounding(torch.float32) * (taken * full).sqrt()
        return squared.clamp(min=0), error

    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        layer, length = self.layer, self.layer.weight_v.norm(dim=1).double()
        delta, scale = self.delta.double() * factors[:, None], layer.weight_g.double() / length
        sums[layer.bias] += delta.sum(0)
        along = (delta * self.u).sum(0)
        sums[layer.weight_g] += along
        total = sums[layer.weight_v].addmm_(delta.mul_(scale).T, self.x.double())
        taken = along * scale / length
        for start in range(0, len(total), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            total[rows].addcmul_(layer.weight_v[rows].double(), taken[rows, None], value=-1)

    def again(self, rows: torch.Tensor) -> Self:
        twin = self.widened(rows)
        twin.u = functional.linear(twin.x, self.layer.direction().double())
        return twin

    def _scale(self) -> torch.Tensor:
        return (self.layer.weight_g / self.layer.weight_v.norm(dim=1)).to(self.delta.dtype)


@register(WeightNormLinear)
class WeightNormRule(LayerRule):
    """Closed forms; else run again."""

    closed_form = WeightNormForm
