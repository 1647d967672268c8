"""Sums of outer products: matrices, convolutions.

The norm of Σ_t a_t ⊗ b_t is that of its Gram matrices [Goodfellow 2015; Li et al. 2022, "ghost
clipping"], and a weighted sum over examples is one product [Bu et al. 2023, "book-keeping"].
"""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.written import Written


class Outer(Part):
    """Row i is Σ_t a[i, t] ⊗ b[i, t]: ``a`` (rows, T, p) and ``b`` (rows, T, d), shape (p, d)."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self.a, self.b = a, b
        self.shape = torch.Size((a.shape[2], b.shape[2]))

    @property
    def count(self) -> int:
        return len(self.a)

    def written(self) -> torch.Tensor:
        return self.a.mT @ self.b

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.a.double(), self.b.double()
        squared = ((a @ a.mT) * (b @ b.mT)).sum((1, 2)).clamp(min=0).to(self.a.dtype)
        return squared, torch.zeros_like(squared)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        a = self.a.double() * factors[:, None, None]
        total.addmm_(a.flatten(0, 1).T, self.b.double().flatten(0, 1))
        return 0.0

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        a = self.a if weights is None else self.a * weights[:, None, None]
        return Outer(together(a, slots, count), together(self.b, slots, count))

    def silenced(self, rows: torch.Tensor) -> Part:
        mask = rows[:, None, None]
        return Outer(self.a.masked_fill(mask, 0.0), self.b.masked_fill(mask, 0.0))

    def widened(self, rows: torch.Tensor) -> Part:
        return Outer(self.a[rows].double(), self.b[rows].double())

    def joined(self, other: Part) -> Part:
        if isinstance(other, Outer):
            return Outer(torch.cat([self.a, other.a], 1), torch.cat([self.b, other.b], 1))
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return self if shape == self.shape else Written(self.written()).viewed(shape)

    def transposed(self) -> Part:
        return Outer(self.b, self.a)

    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes


def together(values: torch.Tensor, slots: torch.Tensor, count: int) -> torch.Tensor:
    """(rows, T, d) → (count, most × T, d): the rows of a slot side by side, zeros after them."""
    sizes = torch.bincount(slots, minlength=count)
    place = torch.arange(len(slots), device=slots.device) - (sizes.cumsum(0) - sizes)[slots]
    padded = values.new_zeros(count, int(sizes.max()), *values.shape[1:])
    padded[slots, place] = values
    return padded.flatten(1, 2)
