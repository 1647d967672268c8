"""Schedules of thousands of distinct noises, told by a few hundred: never below, or never above."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from accountant.events import Event, FixedSizeSampled, Gaussian, PoissonSampled


def coarser(
    events: list[tuple[Event, int]], most: int, *, costlier: bool
) -> list[tuple[Event, int]]:
    """At most about ``most`` distinct events that cost no less than these, or no more.

    Sampled Gaussian releases alike but for their noise are sorted by it and cut into runs; each
    run takes its least noise, or its greatest: more noise is a further randomisation of what came
    with less, so it never costs more.

    >>> noises = [1.0, 1.1, 1.2, 1.3]
    >>> steps = [(PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=noise)), 5)
    ...          for noise in noises]
    >>> [(event.event.noise_multiplier, n) for event, n in coarser(steps, 2, costlier=True)]
    [(1.0, 10), (1.2, 10)]
    """
    if len(events) <= most:
        return events
    families: defaultdict[PoissonSampled | FixedSizeSampled, list[tuple[float, int]]]
    families = defaultdict(list)
    told: list[tuple[Event, int]] = []
    for event, count in events:
        match event:
            case (
                PoissonSampled(event=Gaussian() as inner)
                | FixedSizeSampled(event=Gaussian() as inner)
            ):
                families[_with_noise(event, inner, 1.0)].append((inner.noise_multiplier, count))
            case _:
                told.append((event, count))
    share = max(most // max(len(families), 1), 1)
    for family, members in families.items():
        for run in np.array_split(np.array(sorted(members)), min(share, len(members))):
            noise = float(run[0, 0] if costlier else run[-1, 0])
            assert isinstance(family.event, Gaussian)
            told.append((_with_noise(family, family.event, noise), int(run[:, 1].sum())))
    return told


def _with_noise(
    event: PoissonSampled | FixedSizeSampled, inner: Gaussian, noise: float
) -> PoissonSampled | FixedSizeSampled:
    return replace(event, event=replace(inner, noise_multiplier=noise))
