"""Units of privacy: which rows belong to each. Indices only, no example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Weights = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnitRows:
    """Which rows belong to each unit of privacy, units numbered by their id in ascending order.

    >>> rows = UnitRows.of(np.array([7, 3, 7]))
    >>> rows.sample(np.random.default_rng(0), np.array([1]), 5)
    (array([0, 2]), array([0, 0]), array([0.5, 0.5], dtype=float32))
    """

    order: Indices
    starts: Indices
    counts: Indices

    @classmethod
    def of(cls, ids: Indices) -> UnitRows:
        """The rows by the unit whose id each has."""
        _, codes, counts = np.unique(ids, return_inverse=True, return_counts=True)
        return cls(np.argsort(codes, kind="stable"), np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def codes(self) -> Indices:
        """The number of each row's unit."""
        codes = np.empty(self.order.size, np.int64)
        codes[self.order] = np.repeat(np.arange(len(self)), self.counts)
        return codes

    def means(self, values: Floats) -> Floats:
        """The mean over the rows of each unit of one value a row."""
        return np.add.reduceat(values[self.order], self.starts) / self.counts

    def sample(
        self, rng: np.random.Generator, units: Indices, limit: int
    ) -> tuple[Indices, Indices, Weights]:
        """At most ``limit`` rows of each of ``units``: row, slot, and weight of its unit's mean.

        * What is drawn for a unit depends on its own rows alone.
        """
        counts = self.counts[units]
        slots = np.repeat(np.arange(units.size), counts)
        place = np.arange(slots.size) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.order[self.starts[units][slots] + place]
        shuffled = np.lexsort((rng.random(rows.size), slots))  # within each slot
        kept = shuffled[place < limit]
        kept = kept[np.lexsort((rows[kept], slots[kept]))]
        weights = (1.0 / np.minimum(counts, limit)).astype(np.float32)
        return rows[kept], slots[kept], weights[slots[kept]]
