"""Sums of outer products without what lies along given directions: weight normalisation.

With d = v/‖v‖ and G the gradient at g d, output by output, ∂v = (g/‖v‖) (G − (G · d) d)
[Salimans, Kingma 2016, Eq. 3]. Of G = Σ_t a_t ⊗ b_t, what lies along d is Σ_t a_t (b_t · d), and
b_t · d is what the layer gave.
"""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import together
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.parts.outer_norms import LOOSE
from dpsgd_torch.gradients.parts.pieces import (
    LEAST,
    U32,
    U64,
    exact_float32,
    pieces,
    relative32,
    squares64,
)
from dpsgd_torch.gradients.parts.tracing import any_of, is_traced
from dpsgd_torch.gradients.parts.transposed import Transposed
from dpsgd_torch.gradients.parts.written import Written


class Projected(Part):
    """Row i is Σ_t a[i, t] ⊗ b[i, t] − diag(c[i]) d, where c[i] = Σ_t a[i, t] ∘ u[i, t].

    * ``outer`` has ``a`` (rows, T, p) and ``b`` (rows, T, d); ``u`` (rows, T, p) is near b · d of
      each ``direction`` d, (p, d), of length near 1. However near they are, this is what a row is,
      and what its norm and its sum are of.
    """

    def __init__(
        self,
        outer: Outer,
        u: torch.Tensor,
        direction: torch.Tensor,
        lengths: torch.Tensor | None = None,
    ) -> None:
        self.outer, self.u, self.direction = outer, u.detach(), direction.detach()
        self.shape = outer.matrix
        self._squares = squares64(self.direction) if lengths is None else lengths

    @property
    def count(self) -> int:
        return self.outer.count

    def written(self) -> torch.Tensor:
        along = self._along().to(self.outer.a)
        return self.outer.written() - along[:, :, None] * self.direction.to(along)

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        """‖row‖² = ‖outer‖² − Σ (2 c (outer · d) − c² ‖d‖²), in which outer · d is near c.

        How near is bounded by float32's rounding; where that bound is not small beside the norm,
        as where all of b lies along d, outer · d is had again in float64.
        """
        a, b = self.outer.a, self.outer.b
        if a.dtype == torch.float64 or not exact_float32(a.device) or is_traced():
            return self._exactly()
        full, lost = self.outer.squared_norms()
        along, ones = self._along(), self._squares
        with torch.autocast(a.device.type, enabled=False):
            squared = full - along.square() @ (2 - ones)
            sizes = (a.abs() * b.norm(dim=2, keepdim=True)).sum(1).double() * along.abs()
            near = 2.001 * relative32(b.shape[2] + 1) * (sizes @ ones.sqrt())
        terms = a.shape[1] + sum(a.shape[2:]) + b.shape[2] + 8
        error = lost + near + terms * U64 * (full + along.square() @ ones)
        again = ~(error <= LOOSE * squared) | ~torch.isfinite(squared)
        if any_of(again):
            squared[again], error[again] = self.widened(again).squared_norms()
        return squared.clamp(min=0), error

    def _exactly(self) -> tuple[torch.Tensor, torch.Tensor]:
        """In float64 throughout, whatever ``u`` was rounded to."""
        wide = Outer(self.outer.a.double(), self.outer.b.double())
        full, lost = wide.squared_norms()
        along, ones = self._along(), self._squares
        seen = torch.empty_like(wide.a)
        with torch.autocast(wide.a.device.type, enabled=False):
            for at in pieces(len(ones), wide.b.shape[2], ones.device):
                seen[:, :, at] = wide.b @ self.direction[at].double().T
            crossed = (wide.a * seen).sum(1)
            squared = full - ((2 * crossed - along * ones) * along).sum(1)
            sizes = (wide.a.abs() * wide.b.norm(dim=2, keepdim=True)).sum(1) * ones.sqrt()
            size = full + ((2 * sizes + along.abs() * ones) * along.abs()).sum(1)
        terms = 2 * (wide.a.shape[1] + wide.a.shape[2] + wide.b.shape[2] + 8)
        return squared.clamp(min=0), lost + terms * U64 * size

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        error = self.outer.add_to(total, factors, within)
        self._subtract(total, factors @ self._along())
        return error

    def total(self, factors: torch.Tensor, within: float) -> tuple[torch.Tensor, float]:
        """In float32 where that rounding, too, is within what is allowed."""
        total, error = self.outer.total(factors, within / 2)
        along = factors @ self._along()
        if total.dtype != torch.float64:
            taken = float(along.square() @ self._squares) ** 0.5
            rounded = 1.01 * U32 * (float(squares64(total.view(1, -1))) ** 0.5 + taken)
            rounded += LEAST * total.numel() ** 0.5
            if rounded <= within / 2:
                error = (error**0.5 + rounded) ** 2
            else:
                total = total.double()
        self._subtract(total, along)
        return total, error

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        outer = self.outer.grouped(slots, weights, count)
        if isinstance(outer, Outer):
            return self._with(outer, together(self.u, slots, count))
        along = self._along() if weights is None else self._along() * weights[:, None].double()
        sums = along.new_zeros(count, along.shape[1]).index_add_(0, slots, along)
        taken = sums[:, :, None].to(outer.written()) * self.direction.to(outer.written())
        return Written(outer.written() - taken)

    def silenced(self, rows: torch.Tensor) -> Part:
        outer = self.outer.silenced(rows)
        return self._with(outer, self.u.masked_fill(rows[:, None, None], 0.0))

    def widened(self, rows: torch.Tensor) -> Part:
        return self._with(self.outer.widened(rows), self.u[rows])

    def joined(self, other: Part) -> Part:
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return self if shape == self.shape else Written(self.written()).viewed(shape)

    def transposed(self) -> Part:
        return Transposed(self)

    def nbytes(self) -> int:
        return self.outer.nbytes() + self.u.nbytes + self.direction.nbytes

    def _along(self) -> torch.Tensor:
        """(rows, p) c, in float64."""
        return (self.outer.a.double() * self.u.double()).sum(1)

    def _with(self, outer: Part, u: torch.Tensor) -> Projected:
        assert isinstance(outer, Outer)
        return Projected(outer, u, self.direction, self._squares)

    def _subtract(self, total: torch.Tensor, along: torch.Tensor) -> None:
        """diag(along) d from ``total``, by way of float64."""
        for at in pieces(len(total), total.shape[1], total.device):
            total[at] = torch.addcmul(
                total[at].double(), along[at, None], self.direction[at].double(), value=-1
            )
