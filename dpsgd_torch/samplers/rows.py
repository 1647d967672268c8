"""Rows of a batch: the slot of each, and which belong to one unit. Indices only, no example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Weights = NDArray[np.float32]


def assign_slots(rng: np.random.Generator, batch: Indices, microbatches: int) -> Indices:
    """A microbatch for each record, uniform and independent of who else is in the batch.

    Filling slots in order instead would let one record push every later one into another slot,
    and its sensitivity would grow with the number of microbatches.
    """
    return rng.integers(microbatches, size=batch.size)


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
