"""ε of the mechanism as measured: noise, clip and sampling rate from canaries, then composed.

It assumes what the others do not: that each step adds independent Gaussian noise to a Poisson
sample, all steps alike. What is measured is by how much, so that the bound closes in on ε; whether
it is so is for other tests to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy  # which loads its submodules when they are first used

from accountant.auditing.many_runs import clopper_pearson
from accountant.errors import check, check_delta
from accountant.events import Gaussian, PoissonSampled
from accountant.pld.accountant import PldAccountant


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a white-box attacker saw of canaries in all steps of a run, in units of the clip norm.

    Args:
        values: how many noise values were seen, and ``energy`` the sum of their squares.
        joins: how often a canary that was in joined a batch, of ``chances``.
        height: the mean, over joins, of what the release showed along the canary's direction.
        steps: of the run.
    """

    values: int
    energy: float
    joins: int
    chances: int
    height: float
    steps: int


@dataclass(frozen=True)
class MeasuredStep:
    """Limits of one step that hold together."""

    sampling_rate: float
    noise_multiplier: float


def measured_step(seen: Measurements, confidence: float = 0.95) -> MeasuredStep | None:
    """The step with the most noise, least clip and least rate that what was seen allows.

    Three limits that hold together with that confidence: the noise's deviation by χ² of its
    values, the canaries' height by a normal mean, and the sampling rate by Clopper, Pearson
    [1934]; None where no canary surely shows.
    """
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")
    if not (seen.values and seen.joins):
        return None
    each = (1 - confidence) / 3
    deviation = math.sqrt(seen.energy / float(scipy.stats.chi2.ppf(each, seen.values)))
    reach = float(scipy.stats.norm.isf(each)) / math.sqrt(seen.joins)
    height = seen.height - reach * deviation
    rate = clopper_pearson(seen.joins, seen.chances, 1 - 2 * each)[0]
    if height <= 0 or rate <= 0:
        return None
    return MeasuredStep(rate, deviation / height)


def epsilon_as_measured(seen: Measurements, *, delta: float, confidence: float = 0.95) -> float:
    """ε from below at this δ of all steps, each at least ``measured_step``.

    >>> seen = Measurements(values=100_000, energy=100_000.0, joins=5000, chances=50_000,
    ...                     height=1.0, steps=100)
    >>> round(epsilon_as_measured(seen, delta=1e-5), 3)
    6.401
    """
    check_delta(delta)
    return composed_from_below(measured_step(seen, confidence), seen.steps, delta)


def composed_from_below(step: MeasuredStep | None, steps: int, delta: float) -> float:
    """ε from below of so many Poisson-sampled Gaussian steps; 0 where nothing was measured."""
    if step is None:
        return 0.0
    if step.noise_multiplier == 0:
        return math.inf
    noise = Gaussian(noise_multiplier=step.noise_multiplier)
    event = PoissonSampled(sampling_rate=step.sampling_rate, event=noise)
    return PldAccountant().compose(event, steps).epsilon(delta).lower
