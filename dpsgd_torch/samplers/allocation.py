"""Random allocation: each record is in exactly k of t batches; balls in bins where k is 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from accountant import Event, NoCost, RandomAllocation
from accountant.errors import check
from dpsgd_torch.data.units import UnitRows
from dpsgd_torch.samplers.base import Batch, Generators, Sampler


@dataclass(frozen=True, kw_only=True)
class AllocationSampler(Sampler):
    """Random allocation of records, or of units with all their rows, to rounds of t steps.

    * In each round of t = ⌈k n / B⌉ steps a record is in exactly k = ``selected`` batches, every
      choice as likely, independently of every other record and of every other round.
    * A round is paid for as a whole, at its first step, and its other steps cost nothing more. An
      attempt that begins within a round draws the round anew, and pays for it anew; the last round
      costs as much where ``steps`` cut it short.
    * The noise multiplier stays the same throughout a round.

    >>> sampler = AllocationSampler(dataset_size=1000, batch_size=50, steps=40)
    >>> sampler.round, sampler.charges(0, 1.5).steps, sampler.charges(1, 1.5)
    (20, 20, NoCost())
    """

    name: ClassVar[str] = "allocation"
    checks_noise: ClassVar[bool] = True
    selected: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.selected <= self.round <= self.steps,
            "allocation",
            self.selected,
            f"takes {self.round} steps, each with n/{self.round // self.selected} of the records, "
            f"and the run has {self.steps}",
            "raise epochs, or lower the number",
        )

    @property
    def round(self) -> int:
        """t, the steps of a round."""
        return math.ceil(Fraction(self.selected * self.dataset_size, self.batch_size))

    @property
    def rate(self) -> float:
        return self.selected / self.round

    def begin(self, step: int) -> int:
        """The first step of the round that ``step`` is in."""
        return step - step % self.round

    def draw(self, stream: Generators, step: int, records: int, units: UnitRows | None) -> Batch:
        there, begin = len(units or range(records)), self.begin(step)
        rng = stream("sampling", step=begin)
        taken = allocated(rng, there, self.round, self.selected)
        members = np.flatnonzero((taken == step - begin).any(axis=1))
        return self.in_slots(stream, members, units)

    def event(self, noise_multiplier: float) -> RandomAllocation:
        return RandomAllocation(
            steps=self.round, selected=self.selected, event=self.release(noise_multiplier)
        )

    def charges(self, step: int, noise_multiplier: float, first: int = 0) -> Event:
        if step in (self.begin(step), first):
            return self.event(noise_multiplier)
        return NoCost(relation=self.relation)

    def check_noise(self, at: Callable[[int], float]) -> None:
        changed = [s for s in range(self.steps) if at(s) != at(self.begin(s))]
        check(
            not changed,
            f"noise_multiplier at step {changed[0] if changed else 0}",
            at(changed[0]) if changed else 0.0,
            f"must stay the same throughout the {self.round} steps that are paid for together",
            "let it change between them, or sample by Poisson",
        )

    def describe(self) -> str:
        kind = "balls in bins" if self.selected == 1 else "random allocation"
        return (
            f"every {self.unit} was in exactly {self.selected} of the batches of each round of "
            f"{self.round} steps, drawn uniformly and independently of every other ({kind}, "
            f"{self.batch_size} expected of {self.dataset_size}; a round is charged as a whole, at "
            "its first step)"
        )


def allocated(
    rng: np.random.Generator, records: int, steps: int, selected: int
) -> NDArray[np.int64]:
    """Shape (records, selected): the steps that each record is in, distinct.

    Floyd's algorithm for every record at once: the j-th number is drawn below steps − selected + j
    + 1, and is that bound itself where it was there already.

    >>> np.sort(allocated(np.random.default_rng(0), 2, 3, 3)).tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    taken = np.full((records, selected), -1, np.int64)
    for j, most in enumerate(range(steps - selected, steps)):
        drawn = rng.integers(most + 1, size=records)
        again = (taken[:, :j] == drawn[:, None]).any(axis=1)
        taken[:, j] = np.where(again, most, drawn)
    return taken
