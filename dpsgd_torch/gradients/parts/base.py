"""What a part knows of each example's gradient: its norm, and weighted sums over examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch


class Part(ABC):
    """What each example adds to one tensor in a pass: a parameter, or what is made of some.

    * Row i of every tensor held is example i's (or slot i's, once ``grouped``).
    * A part is not changed once it is made.
    """

    shape: torch.Size
    keeps_outer = False  # joined with a sum of outer products, it writes nothing out

    @property
    @abstractmethod
    def count(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def written(self) -> torch.Tensor:
        """(rows, *shape): every row's gradient, written out."""

    @abstractmethod
    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows,) squared norms in float64, and by what each may be too small."""

    @abstractmethod
    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        """Add Σ factor × row to ``total``, float64 of ``shape``.

        Args:
            factors: (rows,) float64; a row with factor 0 is left out, but must be finite.
            within: L2 norm of the rounding error that is allowed; 0 for float64 throughout.

        Returns:
            A bound on the square of the rounding error that was made beyond float64's.
        """

    def total(self, factors: torch.Tensor, within: float) -> tuple[torch.Tensor, float]:
        """Σ factor × row by itself, in float64 or, within the error allowed, in less; the error."""
        total = torch.zeros(self.shape, dtype=torch.float64, device=factors.device)
        return total, self.add_to(total, factors, within)

    def measured(self, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The sum in float32 and its error's square, where that pays; no value is looked at."""
        return None

    @abstractmethod
    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        """Rows of one slot added up into one, each times its weight; ``slots`` ascend from 0."""

    @abstractmethod
    def silenced(self, rows: torch.Tensor) -> Part:
        """The rows of a mask count as zero."""

    @abstractmethod
    def widened(self, rows: torch.Tensor) -> Part:
        """Some of the rows (indices), in float64."""

    @abstractmethod
    def joined(self, other: Part) -> Part:
        """The sum of two parts of one tensor, row by row."""

    def joined_all(self, others: Sequence[Part]) -> Part:
        """The sum of many parts of one tensor."""
        total: Part = self
        for other in others:
            total = total.joined(other)
        return total

    @abstractmethod
    def viewed(self, shape: torch.Size) -> Part:
        """The same for a tensor of another shape and the same values in the same order."""

    @abstractmethod
    def transposed(self) -> Part:
        """The same for the transpose of a matrix."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held."""
