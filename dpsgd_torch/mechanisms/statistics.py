"""What a run learns of its table before it trains: means, scales, label frequencies, features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accountant import Event, ExponentialMechanism, Laplace
from accountant.errors import check
from dpsgd_torch.mechanisms.exponential import choice_event, choose
from dpsgd_torch.mechanisms.laplace import add_laplace, exact_sums
from dpsgd_torch.mechanisms.units import per_unit_means

Floats = NDArray[np.float64]
Units = NDArray[np.int64] | None
_NORMAL = math.sqrt(math.pi / 2)  # deviation over mean absolute deviation, for a normal law
_LEAST = 0.05  # of the declared half range: no scale is below it


def _check_declared(noise_multiplier: float, size: int) -> None:
    check(0 < noise_multiplier < math.inf, "noise_multiplier", noise_multiplier, "must be > 0")
    check(size >= 1, "dataset_size", size, "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """A location and a scale of each feature, from its declared range.

    * Each unit contributes the mean of its rows, clipped to the declared range.
    * Location: centre of the range + noisy sum of what lies off it / declared size.
    * Scale: noisy sum of the absolute distances to that location / size, times √(π/2), which is
      the deviation where values are normal. (A second moment would be moved by the square of the
      range.) Never below a twentieth of the half range.
    * A unit can move each of the 2d sums by its bound: they compose as 2d Laplace releases.

    Args:
        low, high: (d,) declared range of each feature.
        noise_multiplier: scale of the noise over what a unit can move a sum by.
        size: number of units, as declared.
    """

    low: Floats
    high: Floats
    noise_multiplier: float
    size: int

    def __post_init__(self) -> None:
        _check_declared(self.noise_multiplier, self.size)

    @property
    def event(self) -> Laplace:
        return Laplace(noise_multiplier=self.noise_multiplier)

    @property
    def events(self) -> list[tuple[Event, int]]:
        return [(self.event, 2 * len(self.low))]

    def draw(self, inputs: Floats, units: Units = None) -> tuple[Floats, Floats]:
        """(rows, d) → (d,) locations and (d,) scales."""
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        values = per_unit_means(np.clip(inputs, self.low, self.high), units)
        off = add_laplace(exact_sums((values - centre) / half, 1.0), self.event, 1.0) / self.size
        off = np.clip(off, -1.0, 1.0)  # in half ranges
        reach = 1.0 + np.abs(off)  # the farthest that the range lies from the location
        distances = np.abs((values - centre) / half - off) / reach
        spread = add_laplace(exact_sums(distances, 1.0), self.event, 1.0) / self.size * reach
        scale = np.clip(_NORMAL * spread, _LEAST, 2.0)
        return centre + off * half, scale * half


@dataclass(frozen=True, kw_only=True)
class LabelFrequencies:
    """How often each label is positive.

    * Each unit contributes the mean of its rows' 0/1 labels, scaled down to a sum of at most
      ``most``, so it moves all sums together by at most that (L1): one Laplace release.
    """

    noise_multiplier: float
    size: int
    most: float = 3.0

    def __post_init__(self) -> None:
        _check_declared(self.noise_multiplier, self.size)
        check(self.most > 0, "most", self.most, "must be > 0")

    @property
    def event(self) -> Laplace:
        return Laplace(noise_multiplier=self.noise_multiplier)

    @property
    def events(self) -> list[tuple[Event, int]]:
        return [(self.event, 1)]

    def draw(self, targets: Floats, units: Units = None) -> Floats:
        """(rows, labels) of 0 and 1 → (labels,) frequencies, kept off 0 and 1 by half the noise."""
        means = per_unit_means(np.clip(targets, 0.0, 1.0), units)
        total, limit = means.sum(axis=1, keepdims=True), self.most * (1 - 1e-12)
        bounded = np.floor(means * np.minimum(1.0, limit / np.maximum(total, 1e-9)) * 2**20)
        sums = add_laplace(exact_sums(bounded / 2**20, 1.0), self.event, self.most) / self.size
        least = min(0.5, 0.5 * self.noise_multiplier * self.most / self.size)
        return np.clip(sums, least, 1 - least)


@dataclass(frozen=True, kw_only=True)
class FeatureSelection:
    """The features that are extreme most often: ``keep`` choices by the exponential mechanism.

    * Score of a feature: how many units have it beyond ``threshold`` declared half ranges from the
      centre in half of their rows or more; a unit moves every score by 0 or 1, all the same way.

    Args:
        low, high: (d,) declared ranges.
        keep: how many to choose.
        epsilon: bounded range of each choice.
    """

    low: Floats
    high: Floats
    keep: int
    epsilon: float
    threshold: float = 0.25

    def __post_init__(self) -> None:
        check(self.epsilon > 0, "epsilon", self.epsilon, "must be > 0")
        rule = f"must lie between 1 and the {len(self.low)} features there are"
        check(1 <= self.keep <= len(self.low), "select_features", self.keep, rule)

    @property
    def event(self) -> ExponentialMechanism:
        return choice_event(self.epsilon)

    @property
    def events(self) -> list[tuple[Event, int]]:
        return [(self.event, self.keep)]

    def draw(self, inputs: Floats, units: Units = None) -> NDArray[np.int64]:
        """(rows, d) → (keep,) positions, ascending."""
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        beyond = (np.abs(inputs - centre) > self.threshold * half).astype(np.float64)
        scores = (per_unit_means(beyond, units) >= 0.5).sum(axis=0).astype(np.float64)
        chosen = choose(scores, self.event, sensitivity=1.0, monotone=True, count=self.keep)
        return np.sort(chosen)
