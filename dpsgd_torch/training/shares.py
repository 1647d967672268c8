"""Shares: one batch dealt out to the ranks of a run, a pure function that needs no talking."""

from __future__ import annotations

import numpy as np

from dpsgd_torch.samplers.base import Batch


def share(batch: Batch, rank: int, size: int) -> Batch:
    """The part of a batch that one rank of ``size`` takes.

    * Shares are disjoint, and together they are the batch: nothing is drawn by ranks.
    * They are contiguous in the order of the slots, as equal in rows as slots that are never
      divided allow; where slots are few, some ranks have none.

    >>> batch = Batch(np.array([7, 3, 5, 9]), np.array([1, 0, 1, 2]))
    >>> [share(batch, rank, 3).rows.tolist() for rank in range(3)]
    [[3], [7, 5], [9]]
    """
    if size == 1:
        return batch
    order = np.argsort(batch.slots, kind="stable")
    ends = np.append(0, np.flatnonzero(np.diff(batch.slots[order], append=-1)) + 1)
    wanted = np.arange(size + 1) * order.size / size
    cuts = ends[np.abs(ends[:, None] - wanted).argmin(0)]
    mine = order[cuts[rank] : cuts[rank + 1]]
    weights = None if batch.weights is None else batch.weights[mine]
    return Batch(batch.rows[mine], batch.slots[mine], weights)
