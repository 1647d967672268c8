"""Passes without sampling: batches that are fixed beforehand, in the same order in each pass."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from accountant import Relation, ShuffledEpoch
from dpsgd_torch.data.units import UnitRows
from dpsgd_torch.samplers.base import Batch, Generators, Sampler


class Passes(Sampler):
    """Passes over the data in batches of a fixed size, shuffled once: no sampling is claimed.

    * Places 1 to ``dataset_size`` are shuffled, once in an attempt, without a look at what is in
      them, and cut into batches of ``batch_size``, of which the last may be smaller.
    * Step t takes batch t mod ⌈n / B⌉: a record takes part once in a pass, and in two passes
      exactly ⌈n / B⌉ steps apart.
    * The order counts as known to the attacker.
    * Neighbours differ by one record replaced: n is public, and the others keep their places. A
      record beyond the declared n never takes part.

    >>> sampler = Passes(dataset_size=1000, batch_size=300, steps=12)
    >>> sampler.period, sampler.event(4.0).event.noise_multiplier
    (4, 2.0)
    """

    name: ClassVar[str] = "passes"
    relation: ClassVar[Relation] = Relation.REPLACE_ONE

    @property
    def period(self) -> int:
        return -(-self.dataset_size // self.batch_size)

    def draw(self, stream: Generators, step: int, records: int, units: UnitRows | None) -> Batch:
        order = stream("parts", step=0).permutation(self.dataset_size)
        start = step % self.period * self.batch_size
        batch = np.sort(order[start : start + self.batch_size])
        return self.in_slots(stream, batch[batch < len(units or range(records))], units)

    def event(self, noise_multiplier: float) -> ShuffledEpoch:
        return ShuffledEpoch(event=self.release(noise_multiplier))

    def describe(self) -> str:
        return (
            f"every {self.unit} of the next {self.batch_size} of {self.dataset_size} was taken, in "
            "an order that was drawn once and is the same in each of "
            f"{-(-self.steps // self.period)} passes (no sampling)"
        )
