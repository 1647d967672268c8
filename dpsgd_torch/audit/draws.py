"""A run's draws made again from its streams, and held against the law that was charged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from dpsgd_torch.audit.checks import (
    Check,
    batch_sizes,
    equal_rates,
    joined_apart,
    noise_apart,
    noise_energy,
    noise_fresh,
    overlaps,
)
from dpsgd_torch.data.units import Indices
from dpsgd_torch.noise.base import Noise, Release, StepPlan
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.samplers.allocation import AllocationSampler
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.training.streams import Streams

_MOST_VALUES = 4096  # of each step's noise; all of it is drawn by one law
_PROCESSES = (2, 3, 4, 8)  # that might have shared a seed


def batch_checks(
    sampler: Sampler, streams: Streams, steps: Sequence[tuple[int, int]]
) -> list[Check]:
    """Every batch of these (attempt, step), drawn again by the run's sampler, against its law."""
    n, rate = sampler.dataset_size, sampler.rate
    counts = np.zeros(n, np.int64)
    sizes, common = [], []
    apart = _where_processes_would_split(n)
    together = np.zeros(len(apart), np.int64)
    before = np.zeros(n, bool)
    rounds: dict[tuple[int, int], Round] = {}
    earlier = Earlier()
    for attempt, step in steps:
        stream = partial(streams.numpy, attempt=attempt, step=step)
        drawn = np.unique(sampler.draw(stream, step, n, None).rows)
        sizes.append(len(drawn))
        common.append(int(before[drawn].sum()))
        counts[drawn] += 1
        if isinstance(sampler, AllocationSampler):
            found = rounds.setdefault((attempt, sampler.begin(step)), Round(n))
            found.add(drawn)
            earlier.add(step - sampler.begin(step), drawn)
        before = np.zeros(n, bool)
        before[drawn] = True
        together += [int((before[one] & before[other]).sum()) for one, other in apart]
    if rate == 1:
        return []
    return [
        batch_sizes(sizes, n, rate),
        equal_rates(counts, len(steps), rate),
        *(
            [_in_rounds(sampler, list(rounds.values())), overlaps(*earlier.told, rate)]
            if isinstance(sampler, AllocationSampler)
            else [overlaps(common[1:], sizes[:-1], rate)]
        ),
        joined_apart(together, [len(one) * len(steps) for one, _ in apart], rate),
    ]


class Round:
    """How often each record was in the batches of a round, and of how many batches."""

    def __init__(self, records: int) -> None:
        self.counts, self.steps = np.zeros(records, np.int64), 0

    def add(self, drawn: Indices) -> None:
        self.counts[drawn] += 1
        self.steps += 1


class Earlier:
    """How many records of a batch were in that of the same place in the round drawn before."""

    def __init__(self) -> None:
        self._last: dict[int, Indices] = {}
        self.told: tuple[list[int], list[int]] = [], []

    def add(self, place: int, drawn: Indices) -> None:
        if (last := self._last.get(place)) is not None:
            self.told[0].append(np.intersect1d(last, drawn, assume_unique=True).size)
            self.told[1].append(last.size)
        self._last[place] = drawn


def _in_rounds(sampler: AllocationSampler, rounds: list[Round]) -> Check:
    """Each record is in exactly k batches of a whole round, and in no more of a part of one."""
    k = sampler.selected
    whole = [found for found in rounds if found.steps == sampler.round]
    wrong = sum(int((found.counts != k).sum()) for found in whole)
    wrong += sum(int((found.counts > k).sum()) for found in rounds)
    return Check(
        "every record is in as many batches of a round as was charged",
        float(not wrong),
        f"{wrong} are not in {k} of {sampler.round}, in {len(whole)} whole rounds",
    )


def _where_processes_would_split(n: int) -> list[tuple[Indices, Indices]]:
    """Disjoint pairs of records at one place of two processes' shares, dealt out or cut."""
    found = []
    for processes in _PROCESSES:
        if share := n // processes:
            dealt, cut = processes * np.arange(share), np.arange(share)
            found += [(dealt, dealt + 1), (cut, cut + share)]
    return found


def noise_checks(
    plan: PrivacyPlan,
    streams: Streams,
    steps: Sequence[tuple[int, int]],
    *,
    values: int = _MOST_VALUES,
) -> list[Check]:
    """The noise of these (attempt, step), added again to sums of nothing, against the plan."""
    values = max(8, min(values, _MOST_VALUES))
    param = torch.nn.Parameter(torch.zeros(values, dtype=torch.float64))
    energies, correlations, within = [], [], []
    shares = sorted({share for each in _PROCESSES if (share := values // each) >= 8})
    before, seen = np.zeros(values), set()
    for attempt, step in steps:
        rng = streams.numpy("noise", attempt=attempt, step=step)
        noise = _noise(plan.noise, plan.step(step), param, rng)
        energies.append(float(noise @ noise))
        correlations.append(_correlation(noise, before))
        before = noise
        within += [_correlation(noise[:share], noise[share : 2 * share]) for share in shares]
        seen.add(noise[:8].tobytes())
    again = len(steps) - len(seen)
    found = [
        noise_energy(energies, np.full(len(energies), values)),
        noise_fresh(correlations[1:], np.full(len(energies) - 1, values)),
    ]
    found.append(noise_apart(within, np.tile(shares, len(energies))))
    words = "none of an earlier step's" if not again else f"{again} of an earlier step's"
    return [*found, Check("no noise is used twice", float(not again), words)]


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths else 0.0


def _noise(
    noise: Noise, plan: StepPlan, param: torch.nn.Parameter, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What is added to a sum, over its deviation."""
    sums = [torch.zeros_like(param)]
    noise.add(sums, [param], Release(plan, 0, 1, rng))
    assert param.grad is not None
    return param.grad.numpy() / (plan.noise_multiplier * plan.clip_norm)
