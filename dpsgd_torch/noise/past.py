"""What correlated noise keeps of its past, and what of it is added to noise that is drawn anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from accountant.factorization.buffers import Buffers
from accountant.factorization.factor import Factor


class Past(ABC):
    """Rows [kept, coordinates] of float64, zero at first, each used and renewed by every step."""

    @property
    @abstractmethod
    def kept(self) -> int:
        """Rows."""

    @abstractmethod
    def added(self, rows: torch.Tensor, taken: int) -> torch.Tensor:
        """What step ``taken`` (from 0) adds to what it draws, summed in one order: to the bit."""

    @abstractmethod
    def keep(self, rows: torch.Tensor, taken: int, new: torch.Tensor, noise: torch.Tensor) -> None:
        """Renew the rows, of what this step drew and of the noise that came of it."""


@dataclass(frozen=True)
class Recent(Past):
    """The last few noises: z_t = w_t − Σ_{j≥1} c_j z_{t−j}, or w_t + Σ_{j≥1} (C⁻¹)_j w_{t−j}."""

    weights: tuple[float, ...]
    of_drawn: bool

    @property
    def kept(self) -> int:
        return len(self.weights) - 1

    def added(self, rows: torch.Tensor, taken: int) -> torch.Tensor:
        total = rows.new_zeros(rows.shape[1])
        for j in range(1, len(self.weights)):
            total.add_(rows[(taken - j) % len(rows)], alpha=self.weights[j])
        return total if self.of_drawn else total.neg_()

    def keep(self, rows: torch.Tensor, taken: int, new: torch.Tensor, noise: torch.Tensor) -> None:
        if self.kept:
            rows[taken % len(rows)] = new if self.of_drawn else noise


@dataclass(frozen=True)
class Fading(Past):
    """Sums that fade: z_t = w_t − Σ_i ω_i s_i, then s_i ← λ_i s_i + z_t."""

    buffers: Buffers

    @property
    def kept(self) -> int:
        return len(self.buffers.weights)

    def added(self, rows: torch.Tensor, taken: int) -> torch.Tensor:
        total = rows.new_zeros(rows.shape[1])
        for row, weight in zip(rows, self.buffers.weights, strict=True):
            total.add_(row, alpha=-weight)
        return total

    def keep(self, rows: torch.Tensor, taken: int, new: torch.Tensor, noise: torch.Tensor) -> None:
        for row, decay in zip(rows, self.buffers.decays, strict=True):
            row.mul_(decay).add_(noise)


def past_of(factor: Factor) -> Past:
    """How noise of that factor goes on from what was."""
    if factor.buffers:
        return Fading(factor.buffers)
    return Recent(factor.inverse or factor.coefficients, of_drawn=bool(factor.inverse))
