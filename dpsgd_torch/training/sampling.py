"""Physical batches: a logical batch cut into pieces; and where samplers keep the rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dpsgd_torch.data.units import Indices, UnitRows, Weights
from dpsgd_torch.samplers.poisson import poisson_sample
from dpsgd_torch.samplers.rows import assign_slots

__all__ = [
    "Indices",
    "UnitRows",
    "Weights",
    "assign_slots",
    "physical_batches",
    "poisson_sample",
]


def physical_batches(slots: Indices, limit: int) -> Iterator[Indices]:
    """Positions of the batch in pieces of at most ``limit``, no microbatch divided.

    A microbatch larger than ``limit`` becomes a piece of its own.

    >>> [piece.tolist() for piece in physical_batches(np.array([1, 0, 1, 2]), 3)]
    [[1, 0, 2], [3]]
    """
    order = np.argsort(slots, kind="stable")
    ends = np.flatnonzero(np.diff(slots[order], append=-1)) + 1
    start = 0
    while start < order.size:
        within = ends[(ends > start) & (ends <= start + limit)]
        stop = int(within[-1]) if within.size else int(ends[ends > start][0])
        yield order[start:stop]
        start = stop
