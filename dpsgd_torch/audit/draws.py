"""A run's draws made again from its streams, and held against the law that was charged."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from dpsgd_torch.audit.checks import (
    Check,
    batch_sizes,
    equal_rates,
    noise_energy,
    noise_fresh,
    overlaps,
)
from dpsgd_torch.noise.base import Noise, Release, StepPlan
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.training.streams import Streams

_MOST_VALUES = 4096  # of each step's noise; all of it is drawn by one law


def batch_checks(sampler: Sampler, streams: Streams, steps: range, attempt: int) -> list[Check]:
    """Every batch of these steps, drawn again by the run's own sampler, against its law."""
    n, rate = sampler.dataset_size, sampler.rate
    counts = np.zeros(n, np.int64)
    sizes, common = [], []
    before = np.zeros(n, bool)
    for step in steps:
        stream = partial(streams.numpy, attempt=attempt, step=step)
        drawn = np.unique(sampler.draw(stream, step, n, None).rows)
        sizes.append(len(drawn))
        common.append(int(before[drawn].sum()))
        counts[drawn] += 1
        before = np.zeros(n, bool)
        before[drawn] = True
    if rate == 1:
        return []
    return [
        batch_sizes(sizes, n, rate),
        equal_rates(counts, len(steps), rate),
        overlaps(common[1:], sizes[:-1], rate),
    ]


def noise_checks(
    plan: PrivacyPlan, streams: Streams, steps: range, attempt: int, *, values: int = _MOST_VALUES
) -> list[Check]:
    """The noise of these steps, added again to sums of nothing, against the planned deviation."""
    values = max(8, min(values, _MOST_VALUES))
    param = torch.nn.Parameter(torch.zeros(values, dtype=torch.float64))
    energies, correlations = [], []
    before, seen, again = np.zeros(values), set(), 0
    for step in steps:
        rng = streams.numpy("noise", attempt=attempt, step=step)
        noise = _noise(plan.noise, plan.step(step), param, rng)
        energies.append(float(noise @ noise))
        lengths = np.linalg.norm(noise) * np.linalg.norm(before)
        correlations.append(float(noise @ before / lengths) if lengths else 0.0)
        before = noise
        seen.add(noise[:8].tobytes())
        again = 1 + step - steps.start - len(seen)
    found = [
        noise_energy(energies, np.full(len(energies), values)),
        noise_fresh(correlations[1:], np.full(len(energies) - 1, values)),
    ]
    words = "none of an earlier step's" if not again else f"{again} of an earlier step's"
    return [*found, Check("no noise is used twice", float(not again), words)]


def _noise(
    noise: Noise, plan: StepPlan, param: torch.nn.Parameter, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What is added to a sum, over its deviation."""
    sums = [torch.zeros_like(param)]
    noise.add(sums, [param], Release(plan, 0, 1, rng))
    assert param.grad is not None
    return param.grad.numpy() / (plan.noise_multiplier * plan.clip_norm)
