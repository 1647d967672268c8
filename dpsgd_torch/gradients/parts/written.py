"""Per-example gradients that are written out: few values, or nothing better is known."""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part


class Written(Part):
    """``gradients`` (rows, *shape)."""

    def __init__(self, gradients: torch.Tensor) -> None:
        self.gradients, self.shape = gradients, gradients.shape[1:]

    @property
    def count(self) -> int:
        return len(self.gradients)

    def written(self) -> torch.Tensor:
        return self.gradients

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        squared = self._flat().square().sum(1)
        return squared, torch.zeros_like(squared)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        total.view(-1).add_(factors @ self._flat().double())
        return 0.0

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        flat = self._flat() if weights is None else self._flat() * weights[:, None]
        sums = flat.new_zeros(count, flat.shape[1]).index_add_(0, slots, flat)
        return Written(sums.view(count, *self.shape))

    def silenced(self, rows: torch.Tensor) -> Part:
        mask = rows.view(-1, *(1,) * len(self.shape))
        return Written(self.gradients.masked_fill(mask, 0.0))

    def widened(self, rows: torch.Tensor) -> Part:
        return Written(self.gradients[rows].double())

    def joined(self, other: Part) -> Part:
        return Written(self.gradients + other.written())

    def viewed(self, shape: torch.Size) -> Part:
        return Written(self.gradients.reshape(self.count, *shape))

    def transposed(self) -> Part:
        return Written(self.gradients.mT)

    def nbytes(self) -> int:
        return self.gradients.nbytes

    def _flat(self) -> torch.Tensor:
        return self.gradients.reshape(self.count, -1)
