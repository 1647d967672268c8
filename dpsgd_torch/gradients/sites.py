"""What a layer with closed-form gradients keeps of one pass: norms and sums without the gradients.

The gradient of a linear map's weight for one example is an outer product of what came in and the
gradient of what went out, so its norm and any weighted sum follow from those two [Goodfellow 2015;
Bu et al. 2023, "book-keeping"]. Rows that share a slot add up first: the norm of their sum is
Σ (x_i · x_j)(δ_i · δ_j) over pairs of them [Lee, Kifer 2021].
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dpsgd_torch.layers import WeightNormLinear

_AT_ONCE = 64  # rows of a weight that are widened at once, so that they stay in the cache
_ROUNDING = 2e-6  # float32: of a squared norm where sums cancel

Sums = dict[Any, torch.Tensor]  # by parameter


@dataclass(frozen=True)
class Rows:
    """How the examples of a pass share slots: ascending slots from 0, or each its own (None)."""

    slots: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.weights is None else values * self.weights[:, None]

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, d) → (slots, d)."""
        if self.slots is None:
            return values
        count = int(self.slots[-1]) + 1
        return values.new_zeros(count, values.shape[1]).index_add_(0, self.slots, values)

    def paired(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(slots,) squared norms of Σ a ⊗ b over each slot's rows, and what they may err by.

        A square below the least float is lost, and the other factor can be large enough to make
        it count: each sum of squares is told with what it may have lost.
        """
        lost_a, lost_b = (v.shape[1] * torch.finfo(v.dtype).tiny for v in (a, b))
        if self.slots is None:
            squared = (a.square().sum(1) + lost_a) * (b.square().sum(1) + lost_b)
            return squared, torch.zeros_like(squared)
        counts = torch.bincount(self.slots)
        place = torch.arange(len(a), device=a.device) - (counts.cumsum(0) - counts)[self.slots]
        grams = []
        for values in (a, b):
            padded = values.new_zeros(len(counts), int(counts.max()), values.shape[1])
            padded[self.slots, place] = values
            grams.append(padded @ padded.mT)
        squared = (grams[0] * grams[1]).sum((1, 2)).clamp(min=0)
        of_a, of_b = (
            (gram.diagonal(dim1=1, dim2=2).clamp(min=0) + lost).sqrt()
            for gram, lost in zip(grams, (lost_a, lost_b), strict=True)
        )
        error = _ROUNDING * (of_a * of_b).sum(1).square()
        lost = lost_a * of_b.sum(1).square() + lost_b * of_a.sum(1).square()
        return squared, error + 2 * lost


class Site(ABC):
    """One use of one layer: what came in, and (later) the loss's gradient at what went out.

    ``names`` are those of the layer's parameters that it has the closed forms of.
    """

    names = frozenset({"weight", "bias"})

    def __init__(self, layer: nn.Module, x: torch.Tensor) -> None:
        self.layer, self.x = layer, x.detach()
        self.delta = torch.empty(0)

    def silence(self, rows: torch.Tensor) -> None:
        """Let these examples count as zero."""
        self.x = self.x.masked_fill(rows[:, None], 0.0)
        self.delta = self.delta.masked_fill(rows[:, None], 0.0)

    @abstractmethod
    def squared_norms(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """(slots,) squared norms over this layer's parameters, and what they may err by."""

    @abstractmethod
    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        """Add Σ factor × gradient over the examples; sums and factors are float64."""

    def widened(self, rows: torch.Tensor) -> Site:
        """What some of the rows hold, in float64."""
        twin = copy.copy(self)
        twin.x, twin.delta = self.x[rows].double(), self.delta[rows].double()
        return twin

    def double(self, row: torch.Tensor) -> Site:
        """The same use by some of the examples, in float64 as far as it can be had."""
        twin = type(self)(self.layer, self.x[row].double())
        twin.delta = self.delta[row].double()
        return twin


class LinearSite(Site):
    """nn.Linear: δ ⊗ x, and δ for the bias."""

    layer: nn.Linear

    def squared_norms(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        delta = rows.weighted(self.delta)
        squared, error = rows.paired(self.x, delta)
        if self.layer.bias is not None:
            squared = squared + rows.summed(delta).square().sum(1)
        return squared, error

    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        delta = self.delta.double() * factors[:, None]  # not in place: it may be float64 already
        sums[self.layer.weight].addmm_(delta.T, self.x.double())
        if self.layer.bias is not None:
            sums[self.layer.bias] += delta.sum(0)


class WeightNormSite(Site):
    """WeightNormLinear: with u = x · v/‖v‖ and s = g/‖v‖, ∂g = δ u and ∂v = s (δ ⊗ x − ∂g v/‖v‖).

    The part of x along v is taken out of ∂v, so ‖∂v‖² = s² (δ² ‖x‖² − ∂g²), output by output.
    """

    names = frozenset({"weight_v", "weight_g", "bias"})
    layer: WeightNormLinear
    u: torch.Tensor

    def squared_norms(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        delta, scale = rows.weighted(self.delta), self._scale()
        along = rows.summed(delta * self.u)
        full, error = rows.paired(self.x, delta * scale)
        taken = (along * scale).square().sum(1)
        squared = full - taken + along.square().sum(1)
        squared = squared + rows.summed(delta).square().sum(1)
        if rows.slots is None:
            error = _ROUNDING * (taken * full).sqrt()
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

    def widened(self, rows: torch.Tensor) -> Site:
        twin = super().widened(rows)
        assert isinstance(twin, WeightNormSite)
        twin.u = self.u[rows].double()
        return twin

    def silence(self, rows: torch.Tensor) -> None:
        super().silence(rows)
        self.u = self.u.masked_fill(rows[:, None], 0.0)

    def double(self, row: torch.Tensor) -> Site:
        twin = super().double(row)
        assert isinstance(twin, WeightNormSite)
        twin.u = functional.linear(twin.x, self.layer.direction().double())
        return twin

    def _scale(self) -> torch.Tensor:
        return (self.layer.weight_g / self.layer.weight_v.norm(dim=1)).to(self.delta.dtype)


class LayerNormSite(Site):
    """nn.LayerNorm over the features: δ x̂ for the weight, δ for the bias; few, so written out."""

    layer: nn.LayerNorm
    added: torch.Tensor | None = None

    def squared_norms(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        delta = rows.weighted(self.delta)
        squared = rows.summed(delta * self._normal()).square().sum(1)
        if self.layer.bias is not None:
            squared = squared + rows.summed(delta).square().sum(1)
        return squared, torch.zeros_like(squared)

    def add_to(self, sums: Sums, factors: torch.Tensor) -> None:
        sums[self.layer.weight] += factors @ (self.delta * self._normal()).double()
        if self.layer.bias is not None:
            sums[self.layer.bias] += factors @ self.delta.double()

    def widened(self, rows: torch.Tensor) -> Site:
        """With x̂ as it is added: of rows far from 0 float64 has another, and another norm."""
        twin = super().widened(rows)
        assert isinstance(twin, LayerNormSite)
        twin.added = self._normal()[rows].double()
        return twin

    def _normal(self) -> torch.Tensor:
        if self.added is not None:
            return self.added
        return functional.layer_norm(self.x, self.layer.normalized_shape, eps=self.layer.eps)


SITES: dict[type[nn.Module], type[Site]] = {
    nn.Linear: LinearSite,
    WeightNormLinear: WeightNormSite,
    nn.LayerNorm: LayerNormSite,
}
