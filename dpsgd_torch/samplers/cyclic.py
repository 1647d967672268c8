"""Cyclic Poisson sampling: records are dealt into parts once, and each step samples one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from accountant import PoissonSampled
from accountant.errors import check
from dpsgd_torch.data.units import UnitRows
from dpsgd_torch.samplers.base import Batch, Generators, Sampler
from dpsgd_torch.samplers.poisson import poisson_sample


@dataclass(frozen=True, kw_only=True)
class CyclicPoisson(Sampler):
    """Poisson sampling of the parts of the data in turn [Choquette-Choo et al. 2023, Algorithm 2].

    * Each record is dealt, once in an attempt, into one of ``cycle`` parts, uniformly and
      independently of every other: who else is there changes nobody's part.
    * Step t samples part t mod ``cycle``: each record of it joins independently of every other with
      probability cycle × ``batch_size`` / ``dataset_size``, and nobody else does. A batch holds
      ``batch_size`` records in expectation.
    * So in ``cycle`` steps in a row nobody can be in two batches, and all of them cost what one
      Poisson sample at that rate costs, whichever part a record is in. Which part that is counts
      as known to the attacker: nothing is claimed for the dealing.

    >>> sampler = CyclicPoisson(dataset_size=1000, batch_size=50, steps=40, cycle=4)
    >>> sampler.charges(0, 1.5)
    PoissonSampled(sampling_rate=0.2, event=Gaussian(noise_multiplier=1.5))
    >>> sampler.charges(1, 1.5)
    NoCost()
    """

    name: ClassVar[str] = "cyclic poisson"

    cycle: int

    def __post_init__(self) -> None:
        check(self.cycle >= 1, "cycle", self.cycle, "must be at least 1")
        rule = f"must be at most n = {self.dataset_size}: a part would be smaller than a batch"
        most = self.cycle * self.batch_size
        check(most <= self.dataset_size, "cycle × batch_size", most, rule, "lower one of the two")
        super().__post_init__()

    @property
    def period(self) -> int:
        return self.cycle

    @property
    def rate_of_part(self) -> float:
        """The probability by which a record joins a batch of its own part."""
        return self.cycle * self.batch_size / self.dataset_size

    def draw(self, stream: Generators, step: int, records: int, units: UnitRows | None) -> Batch:
        count = len(units or range(records))
        parts = stream("parts", step=0).integers(self.cycle, size=count)
        own = np.flatnonzero(parts == step % self.cycle)
        members = own[poisson_sample(stream("sampling"), own.size, self.rate_of_part)]
        return self.in_slots(stream, members, units)

    def event(self, noise_multiplier: float) -> PoissonSampled:
        return PoissonSampled(sampling_rate=self.rate_of_part, event=self.release(noise_multiplier))

    def describe(self) -> str:
        return (
            f"one of {self.cycle} parts, into which {self.unit}s were dealt at random, was sampled "
            f"in its turn, and every {self.unit} of it joined the batch independently with "
            f"probability {self.rate_of_part:.6g} (cyclic Poisson sampling, {self.batch_size} "
            f"expected of {self.dataset_size})"
        )


def cyclic(cycle: int) -> Callable[..., CyclicPoisson]:
    """The kind of sampler with so many parts, for ``Trainer(sampler=…)``.

    >>> cyclic(4)(dataset_size=1000, batch_size=50, steps=40).period
    4
    """
    return partial(CyclicPoisson, cycle=cycle)
