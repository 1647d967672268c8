"""Slots: the clipped vector that each row of a batch goes into. Indices only, no example."""

from __future__ import annotations

import numpy as np

from dpsgd_torch.data.units import Indices


def assign_slots(rng: np.random.Generator, batch: Indices, microbatches: int) -> Indices:
    """A microbatch for each record, uniform and independent of who else is in the batch.

    Filling slots in order instead would let one record push every later one into another slot,
    and its sensitivity would grow with the number of microbatches.
    """
    return rng.integers(microbatches, size=batch.size)
