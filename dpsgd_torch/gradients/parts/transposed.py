"""A part turned: of a matrix that is stored the other way round."""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.written import Written


class Transposed(Part):
    """The transpose of a part that knows no cheaper way to be turned."""

    def __init__(self, inner: Part) -> None:
        self.inner, self.shape = inner, torch.Size(inner.shape[::-1])
        self.keeps_outer = inner.keeps_outer

    @property
    def count(self) -> int:
        return self.inner.count

    def written(self) -> torch.Tensor:
        return self.inner.written().mT

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner.squared_norms()

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        turned = torch.zeros(self.inner.shape, dtype=total.dtype, device=total.device)
        error = self.inner.add_to(turned, factors, within)
        total += turned.T
        return error

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        return self.inner.grouped(slots, weights, count).transposed()

    def silenced(self, rows: torch.Tensor) -> Part:
        return Transposed(self.inner.silenced(rows))

    def widened(self, rows: torch.Tensor) -> Part:
        return Transposed(self.inner.widened(rows))

    def joined(self, other: Part) -> Part:
        return self.inner.joined(other.transposed()).transposed()

    def viewed(self, shape: torch.Size) -> Part:
        return self if shape == self.shape else Written(self.written()).viewed(shape)

    def transposed(self) -> Part:
        return self.inner

    def nbytes(self) -> int:
        return self.inner.nbytes()
