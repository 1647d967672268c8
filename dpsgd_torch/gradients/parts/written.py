"""Per-example gradients that are written out: few values, or nothing better is known."""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import folded
from dpsgd_torch.gradients.parts.pieces import (
    LEAST,
    U64,
    at_once,
    exact_float32,
    real,
    relative32,
    squares64,
)

_ROWS = 16  # that one float32 product adds up
_FEW = 1 << 15  # values of all rows: what float64 does as fast
_SMALL = 2.0**-90  # a factor below it loses digits in float32


class Written(Part):
    """``gradients`` (rows, *shape)."""

    def __init__(self, gradients: torch.Tensor) -> None:
        self.gradients, self.shape = real(gradients), gradients.shape[1:]
        self._squares: torch.Tensor | None = None

    @property
    def count(self) -> int:
        return len(self.gradients)

    def written(self) -> torch.Tensor:
        return self.gradients

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._squares is None:
            self._squares = squares64(self._flat())
        return self._squares, self._squares * ((self.shape.numel() + 2) * U64)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        flat, out = self._flat(), total.view(-1)
        error = self._bound(factors) if within > 0 and flat.numel() > _FEW else float("inf")
        if error <= within:
            single = factors.to(flat.dtype)
            for start in range(0, len(flat), _ROWS):
                out += single[start : start + _ROWS] @ flat[start : start + _ROWS]
            return error**2
        width = max(1, at_once(flat.device) // 2 // max(1, len(flat)))
        with torch.autocast(flat.device.type, enabled=False):
            for start in range(0, flat.shape[1], width):
                block = flat[:, start : start + width].double()
                out[start : start + width] += factors @ block
        return 0.0

    def _bound(self, factors: torch.Tensor) -> float:
        """The error of float32 products of so many rows, summed in float64.

        A column of a product errs by γ Σ |factor||value| at most, so all of them together by
        γ Σ factor × norm, where γ is of a rounding for the factor and one a term.
        """
        flat = self._flat()
        if flat.dtype != torch.float32 or not exact_float32(flat.device):
            return float("inf")
        kept = factors > 0
        if bool((kept & (factors < _SMALL)).any()):
            return float("inf")
        sizes = float(factors @ self.squared_norms()[0].sqrt())
        lost = LEAST * len(flat) * flat.shape[1] ** 0.5
        return 1.001 * relative32(_ROWS + 1) * sizes + lost

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        flat = self._flat()

        def rows(at: slice) -> torch.Tensor:
            return flat[at] if weights is None else flat[at] * weights[at, None].to(flat)

        sums = folded(len(flat), flat.shape[1], slots, count, rows)
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
        return self.gradients.reshape(self.count, self.shape.numel())
