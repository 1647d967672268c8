"""Poisson sampling: each record joins each batch independently of every other."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from accountant import PoissonSampled, dpsgd_event
from dpsgd_torch.data.units import Indices, UnitRows
from dpsgd_torch.samplers.base import Batch, Generators, Sampler
from dpsgd_torch.secure.generator import secure_bits


class PoissonSampler(Sampler):
    """Poisson sampling of records, or of units with all their rows.

    * Each of ``dataset_size`` records joins each batch independently with probability
      ``batch_size`` / ``dataset_size``, for ``steps`` batches.

    >>> sampler = PoissonSampler(dataset_size=1000, batch_size=50, steps=20)
    >>> sampler.event(1.5)
    PoissonSampled(sampling_rate=0.05, event=Gaussian(noise_multiplier=1.5))
    """

    name: ClassVar[str] = "poisson"

    def draw(self, stream: Generators, step: int, records: int, units: UnitRows | None) -> Batch:
        members = poisson_sample(stream("sampling"), len(units or range(records)), self.rate)
        return self.in_slots(stream, members, units)

    def event(self, noise_multiplier: float) -> PoissonSampled:
        return dpsgd_event(
            dataset_size=self.dataset_size,
            batch_size=self.batch_size,
            microbatch_size=self.microbatch_size,
            noise_multiplier=noise_multiplier,
        )

    def describe(self) -> str:
        if self.rate >= 1:
            n = self.dataset_size
            return f"every {self.unit} joined every batch ({n} of {n}: sampling hid none of them)"
        return (
            f"every {self.unit} joined the batch independently with probability {self.rate:.6g} "
            f"(Poisson sampling, {self.batch_size} expected of {self.dataset_size})"
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # without a name, as when there was no other sampler


def poisson_sample(rng: np.random.Generator, records: int, sampling_rate: float) -> Indices:
    """The records of one batch, ascending.

    * Each record joins independently of every other with probability ``sampling_rate``, to
      within 2⁻⁵³ (single precision would misstate a rate of 1e-6 by 6 %).
    * With a secure generator, 64 bits are compared with ⌊2⁶⁴ q⌋: the probability is that rational,
      no larger than q and less than 2⁻⁶⁴ below; what is charged is q.
    * The rate is declared; the number of records only bounds the indices and is not divided by.
    * The batch's size is random; an empty batch is a batch.

    >>> poisson_sample(np.random.default_rng(0), 1000, 0.004)
    array([ 11, 269, 850, 855, 921])
    """
    if (bits := secure_bits(rng)) is None:
        return np.flatnonzero(rng.random(records) < sampling_rate)
    if sampling_rate >= 1:
        return np.arange(records)
    below = np.uint64(math.floor(Fraction(sampling_rate) * 2**64))
    return np.flatnonzero(bits.words(records) < below)
