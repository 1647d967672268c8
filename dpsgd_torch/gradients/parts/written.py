"""Per-example gradients that are written out: few values, or nothing better is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import folded
from dpsgd_torch.gradients.parts.pieces import (
    LEAST,
    exact_float32,
    pieces,
    real,
    relative32,
    squares,
)

_ROWS = (16, 4)  # that one float32 product adds up: as many as the bound allows
_FEW = 1 << 15  # values of all rows: what float64 does as fast
_SMALL = 2.0**-90  # a factor below it loses digits in float32


class Written(Part):
    """``gradients`` (rows, *shape)."""

    def __init__(self, gradients: torch.Tensor) -> None:
        self.gradients, self.shape = real(gradients), gradients.shape[1:]
        self._squares: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def count(self) -> int:
        return len(self.gradients)

    def written(self) -> torch.Tensor:
        return self.gradients

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._squares is None:
            self._squares = squares(self._flat())
        return self._squares

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        flat, out = self._flat(), total.view(-1)
        if within > 0 and flat.numel() > _FEW:
            sizes = self._sizes(factors)
            for rows in _ROWS:
                error = self._bound(sizes, rows)
                if error <= within:
                    single = factors.to(flat.dtype)
                    for start in range(0, len(flat), rows):
                        out += single[start : start + rows] @ flat[start : start + rows]
                    return error**2
        with torch.autocast(flat.device.type, enabled=False):
            for at in pieces(len(flat), 2 * flat.shape[1], flat.device, least=_ROWS[0]):
                out += factors[at] @ flat[at].double()
        return 0.0

    def _sizes(self, factors: torch.Tensor) -> float:
        """Σ factor × norm; infinite where float32 is not what products are made in."""
        if self.gradients.dtype != torch.float32 or not exact_float32(self.gradients.device):
            return float("inf")
        if bool(((factors > 0) & (factors < _SMALL)).any()):
            return float("inf")
        return float(factors @ self.squared_norms()[0].sqrt())

    def _bound(self, sizes: float, rows: int) -> float:
        """The error of float32 products of so many rows, summed in float64.

        A column of a product errs by γ Σ |factor||value| at most, so all of them together by
        γ Σ factor × norm, where γ is of a rounding for the factor and one a term.
        """
        lost = LEAST * self.count * self.shape.numel() ** 0.5
        return 1.001 * relative32(rows + 1) * sizes + lost

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

    def joined_all(self, others: Sequence[Part]) -> Part:
        total = self.gradients.clone()
        for other in others:
            wide = torch.promote_types(total.dtype, other.written().dtype)
            total = total.to(wide).add_(other.written())
        return Written(total)

    def viewed(self, shape: torch.Size) -> Part:
        return Written(self.gradients.reshape(self.count, *shape))

    def transposed(self) -> Part:
        return Written(self.gradients.mT)

    def nbytes(self) -> int:
        return self.gradients.nbytes

    def _flat(self) -> torch.Tensor:
        return self.gradients.reshape(self.count, self.shape.numel())
