"""Sums of outer products: matrices, convolutions.

The norm of Σ_t a_t ⊗ b_t is that of its Gram matrices [Goodfellow 2015; Li et al. 2022, "ghost
clipping"], and a weighted sum over examples is one product [Bu et al. 2023, "book-keeping"].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import folded, together
from dpsgd_torch.gradients.parts.outer_norms import outer_squares
from dpsgd_torch.gradients.parts.outer_sums import add_outer, measured_sum, single_sum
from dpsgd_torch.gradients.parts.pieces import at_once, exact_float32, real
from dpsgd_torch.gradients.parts.transposed import Transposed
from dpsgd_torch.gradients.parts.written import Written

# Written out, a row may hold so many times what is kept of it. On one core, (32, 65, 128, 256), 1.3
# times, took half the time written out; a BERT classifier of (64, 32, 128, 128), 2 times, the same
# time either way, and 2.1 times a plain step's memory where its factors kept it at 1.4.
_MORE = 1.5


def outer(a: torch.Tensor, b: torch.Tensor) -> Part:
    """Σ_t a[i, t] ⊗ b[i, t] as a part: written out where that is not much more than its factors.

    Then neither its norm nor a weighted sum of it needs a second product. Else ``Outer`` keeps both
    factors. A single step is never written out: its norm is |a||b|.

    >>> type(outer(torch.ones(2, 9, 3), torch.ones(2, 9, 4))).__name__
    'Written'
    >>> type(outer(torch.ones(2, 1, 3), torch.ones(2, 1, 4))).__name__
    'Outer'
    """
    kept = Outer(a, b)
    return Written(kept.written()) if kept.written_is_less() else kept


class Outer(Part):
    """Row i is Σ_t a[i, t] ⊗ b[i, t]: ``a`` (rows, T, p) and ``b`` (rows, T, d), shape (p, d).

    ``shape`` may be any of as many values in the same order.
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor, shape: torch.Size | None = None) -> None:
        a, b = real(a), real(b)
        dtype = torch.promote_types(a.dtype, b.dtype)
        self.a, self.b = a.to(dtype), b.to(dtype)
        self.matrix = torch.Size((a.shape[2], b.shape[2]))
        self.shape = self.matrix if shape is None else shape

    @property
    def count(self) -> int:
        return len(self.a)

    def written_is_less(self, and_kept: int = 0) -> bool:
        """Whether a row written out holds not much more values than are kept of it now."""
        return _is_less(self.a.shape[1], self.matrix, and_kept)

    def written(self) -> torch.Tensor:
        if self.a.dtype == torch.float32 and not exact_float32(self.a.device):
            found = self.a.new_empty(self.count, *self.matrix)
            size = max(1, at_once(self.a.device) // max(1, self.matrix.numel()))
            with torch.autocast(self.a.device.type, enabled=False):
                for start in range(0, self.count, size):
                    at = slice(start, start + size)
                    found[at] = self.a[at].double().mT @ self.b[at].double()
        else:
            found = self.a.mT @ self.b
        return found.view(self.count, *self.shape)

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(self.a.device.type, enabled=False):
            return outer_squares(self.a, self.b)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        return add_outer(total.view(self.matrix), self.a, self.b, factors, within)

    def total(self, factors: torch.Tensor, within: float) -> tuple[torch.Tensor, float]:
        single = single_sum(self.a, self.b, factors, within)
        if single is None:
            return super().total(factors, 0.0)
        return single[0].view(self.shape), single[1]

    def measured(self, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        found = measured_sum(self.a, self.b, factors)
        return None if found is None else (found[0].view(self.shape), found[1])

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        a = self.a if weights is None else self.a * weights[:, None, None].to(self.a)
        most = int(torch.bincount(slots, minlength=1).max()) if len(slots) else 0
        if _is_less(self.a.shape[1] * most, self.matrix):
            width = self.matrix.numel()
            sums = folded(
                self.count, width, slots, count, lambda at: Outer(a[at], self.b[at]).written()
            )
            return Written(sums.to(self.a).view(count, *self.shape))
        return Outer(together(a, slots, count), together(self.b, slots, count), self.shape)

    def silenced(self, rows: torch.Tensor) -> Part:
        mask = rows[:, None, None]
        return Outer(self.a.masked_fill(mask, 0.0), self.b.masked_fill(mask, 0.0), self.shape)

    def widened(self, rows: torch.Tensor) -> Part:
        return Outer(self.a[rows].double(), self.b[rows].double(), self.shape)

    def joined(self, other: Part) -> Part:
        if self._is_like(other):
            return self.joined_all([other])
        return other.joined(self) if other.keeps_outer else Written(self.written()).joined(other)

    def joined_all(self, others: Sequence[Part]) -> Part:
        alike = [other for other in others if isinstance(other, Outer) and self._is_like(other)]
        if len(alike) < len(others):
            return super().joined_all(others)
        a, b = (torch.cat([getattr(one, side) for one in (self, *alike)], 1) for side in "ab")
        both = Outer(a, b, self.shape)
        return Written(both.written()) if both.written_is_less() else both

    def _is_like(self, other: Part) -> bool:
        same = isinstance(other, Outer) and other.matrix == self.matrix
        return same and other.shape == self.shape

    def viewed(self, shape: torch.Size) -> Part:
        return Outer(self.a, self.b, shape)

    def transposed(self) -> Part:
        if self.shape == self.matrix:
            return Outer(self.b, self.a)
        return Transposed(self)

    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes


def _is_less(steps: int, matrix: torch.Size, and_kept: int = 0) -> bool:
    p, d = matrix
    return steps > 1 and p * d <= _MORE * (steps * (p + d) + and_kept)
