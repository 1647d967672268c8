"""ε of the mechanism as measured by who sees noisy sums alone: no record, and not the noise.

The sums hold the records' gradients beside the noise, which hides both noise and canaries. Two
things are still known, whatever the records are: added gradients make squares larger and never
smaller, so that the noise is at most what its χ² says; and whether a canary that is in joins a step
is drawn apart from all else, so that its reach is told from the records' by when it joins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import NDArray

from accountant.auditing.many_runs import clopper_pearson
from accountant.auditing.measured import MeasuredStep, composed_from_below
from accountant.errors import check, check_delta

HEIGHTS = np.linspace(0.0, 2.0, 41)
"""In clip norms: where it is kept how far joined values may stray; no clip lets more through."""

SHARES = {"height": 0.9, "noise": 0.05, "rate": 0.05}
"""Of what may err, declared here: height is known least."""

Values = NDArray[np.float64]


def tilt(cells: float, rate: float, noise_multiplier: float, confidence: float) -> float:
    """λ of ``height_seen``, fixed before the run: best where values are the noise alone."""
    spread = rate * (1 - rate) * cells * noise_multiplier**2
    chance = SHARES["height"] * (1 - confidence)
    return math.sqrt(2 * math.log(1 / chance) / spread)


def stray(values: Values, rate: float) -> Values:
    """log E exp((J − q) x) of a J that is 1 with probability q, at each x."""
    found: Values = np.log1p(rate * np.expm1(values)) - rate * values
    return found


@dataclass(frozen=True, kw_only=True)
class SeenOutside:
    """What noisy sums showed along canaries' coordinates, in units of the clip norm.

    Args:
        values: how many were of canaries that did not join; ``energy`` the sum of their squares.
        joins: how often any canary was drawn, of ``chances``.
        rate: by which canaries join, as declared.
        joined: how many values were of canaries that joined, and ``joined_sum`` theirs.
        all_sum: of all values of canaries that are in, joined or not.
        tilt: λ, fixed before the run.
        stray_apart: Σ stray(λ value) over those that are in and did not join.
        stray_joined: (heights,) Σ stray(λ (value − height)) over those that joined.
        steps: of the run.
    """

    values: int
    energy: float
    joins: int
    chances: int
    rate: float
    joined: int
    joined_sum: float
    all_sum: float
    tilt: float
    stray_apart: float
    stray_joined: Values
    steps: int


def height_seen(seen: SeenOutside, significance: float) -> float:
    """How far a record moves the sum, from below.

    A canary's value is h J + a: J is drawn by the rate q apart from a, which is what records and
    noise add. So exp(λ Σ (J − q) a − Σ stray(λ a)) has a mean of 1 whatever the records are, also
    where a depends on earlier J, and exceeds 1 / significance as rarely as that [Ville 1939]. With
    a = value − h J this refutes every h that is too small.
    """
    away = seen.tilt * (1 - seen.rate) * seen.joined * HEIGHTS
    shown = seen.tilt * (seen.joined_sum - seen.rate * seen.all_sum)
    excess = shown - away - seen.stray_apart - seen.stray_joined + math.log(significance)
    kept = np.flatnonzero(excess <= 0)
    if not kept.size:
        return float(HEIGHTS[-1])
    first = int(kept[0])
    if first == 0:
        return 0.0
    # stray is convex: between two heights it lies below the chord, so that this errs downward
    low, high = excess[first - 1], excess[first]
    part = low / (low - high)
    return float(HEIGHTS[first - 1] + part * (HEIGHTS[first] - HEIGHTS[first - 1]))


def step_seen(seen: SeenOutside, confidence: float = 0.95) -> MeasuredStep | None:
    """The step with the most noise, least reach and least rate that sums allow; None: none shows.

    Three limits that hold together, by the shares declared: the deviation by χ² of values that hold
    the noise and more, the reach by ``height_seen``, the rate by Clopper, Pearson [1934].
    """
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")
    if not (seen.values and seen.joins and seen.joined and 0 < seen.rate < 1):
        return None
    errs = {what: share * (1 - confidence) for what, share in SHARES.items()}
    least = float(scipy.stats.chi2.ppf(errs["noise"], seen.values))
    deviation = math.sqrt(seen.energy / least)
    height = height_seen(seen, errs["height"])
    rate = clopper_pearson(seen.joins, seen.chances, 1 - 2 * errs["rate"])[0]
    if height <= 0 or rate <= 0:
        return None
    return MeasuredStep(rate, deviation / height)


def epsilon_seen(seen: SeenOutside, *, delta: float, confidence: float = 0.95) -> float:
    """ε from below at this δ of all steps, each at least ``step_seen``.

    It assumes that each step adds independent Gaussian noise of one deviation to a Poisson sample
    by the declared rate, and that each clipped record reaches as far; nothing of the records.
    """
    check_delta(delta)
    return composed_from_below(step_seen(seen, confidence), seen.steps, delta)
