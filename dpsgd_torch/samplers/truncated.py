"""Truncated Poisson sampling: a Poisson sample of which so many records are kept at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accountant import TruncatedPoissonSampled
from accountant.errors import check
from accountant.truncation import binomial_tail
from dpsgd_torch.data.units import Indices, UnitRows
from dpsgd_torch.samplers.base import Batch, Generators, Sampler
from dpsgd_torch.samplers.poisson import poisson_sample
from dpsgd_torch.secure.generator import secure_bits

_MOST_OFTEN = 1e-4  # that a run of so many steps truncates any batch: more leaves no δ to speak of


@dataclass(frozen=True, kw_only=True)
class TruncatedPoissonSampler(Sampler):
    """Poisson sampling, of records or units, of which at most ``most_drawn`` are kept.

    * Each record joins each batch independently with probability ``batch_size`` /
      ``dataset_size``; of more than ``most_drawn`` so many are kept, uniformly at random.
    * There are at most ``dataset_size`` records, in either neighbour: it bounds how often a batch
      is truncated, which is charged as δ (``accountant.truncation``). More are refused.
    * No batch is larger, ever: memory, and compiled shapes, can be laid out for ``most_drawn``.

    >>> sizes = dict(dataset_size=1000, batch_size=50, steps=20)
    >>> sampler = TruncatedPoissonSampler(**sizes, most_drawn=120)
    >>> sampler.most(), sampler.event(1.5).most
    (120, 120)
    """

    name: ClassVar[str] = "truncated"
    most_drawn: int

    def __post_init__(self) -> None:
        super().__post_init__()
        slip = self._slip(self.most_drawn)
        check(
            slip <= _MOST_OFTEN,
            "truncated",
            self.most_drawn,
            f"batches of {self.batch_size} expected of {self.dataset_size} are larger with a "
            f"probability of {slip:.2g} in {self.steps} steps, which is charged as δ",
            f"take {self._enough()} or more",
        )

    def _slip(self, most: int) -> float:
        return min(self.steps * binomial_tail(self.dataset_size, self.rate, most), 1.0)

    def _enough(self) -> int:
        """The least M that a run passes with a probability of at most 1e-10."""
        low, high = self.batch_size, self.dataset_size
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._slip(middle) > 1e-10 else (low, middle)
        return low

    def check_records(self, records: int) -> None:
        check(
            records <= self.dataset_size,
            self.unit + "s",
            records,
            f"are more than the declared n = {self.dataset_size}, which bounds the truncation",
            "raise dataset_size",
        )

    def draw(self, stream: Generators, step: int, records: int, units: UnitRows | None) -> Batch:
        there = len(units or range(records))
        self.check_records(there)
        rng = stream("sampling")
        members = poisson_sample(rng, there, self.rate)
        return self.in_slots(stream, kept(rng, members, self.most_drawn), units)

    def event(self, noise_multiplier: float) -> TruncatedPoissonSampled:
        return TruncatedPoissonSampled(
            sampling_rate=self.rate,
            dataset_size=self.dataset_size,
            most=self.most_drawn,
            event=self.release(noise_multiplier),
        )

    def describe(self) -> str:
        return (
            f"every {self.unit} of {self.dataset_size} at most joined the batch independently with "
            f"probability {self.rate:.6g}, and of more than {self.most_drawn} so many were kept "
            f"(truncated Poisson sampling, {self.batch_size} expected; what truncation may change "
            f"is charged as δ: it happens with a probability of at most "
            f"{self._slip(self.most_drawn):.1e} in {self.steps} steps)"
        )

    def most(self) -> int:
        return self.most_drawn

    def likely_rows(self) -> int:
        return min(super().likely_rows(), self.most_drawn * (self.rows_per_unit or 1))


def kept(rng: np.random.Generator, members: Indices, most: int) -> Indices:
    """At most so many of them, each subset as likely, ascending.

    >>> kept(np.random.default_rng(0), np.arange(5), 3).size
    3
    """
    if members.size <= most:
        return members
    bits = secure_bits(rng)
    order = rng.random(members.size) if bits is None else bits.words(members.size)
    return np.sort(members[np.argsort(order, kind="stable")[:most]])
