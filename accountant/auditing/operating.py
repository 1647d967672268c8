"""Operating points of an attack, with intervals that hold together, and ε from below by them.

Scores are of independent runs, with a record and without it: one score a run. A threshold is the
k-th largest score of those without, k declared beforehand, so that its false-positive rate is
bounded exactly by an order statistic's law [Wilks 1941], which is Clopper–Pearson's of k − 1; what
it makes of the others is binomial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import ArrayLike
from scipy.special import ndtri

from accountant.auditing.many_runs import clopper_pearson
from accountant.errors import check, check_delta
from accountant.gaussian import gaussian_epsilon


class Certified(Protocol):
    """A curve that no attacker may lie above: a ``TradeOff``, or a ``Claim``."""

    def true_positives(self, rate: float) -> float:
        """The most true positives at a false-positive rate in (0, 1)."""
        ...


@dataclass(frozen=True)
class Claim:
    """The trade-off curve of an (ε, δ) that is claimed, where no more is known of the mechanism.

    TPR ≤ δ + exp(ε) FPR and TPR ≤ 1 − exp(−ε) (1 − δ − FPR) [Kairouz, Oh, Viswanath 2015].

    >>> round(Claim(1.0, 1e-5).true_positives(0.01), 5)
    0.02719
    """

    epsilon: float
    delta: float

    def true_positives(self, rate: float) -> float:
        """The most true positives at a false-positive rate in (0, 1)."""
        check(0 < rate < 1, "false_positive_rate", rate, "must lie in (0, 1)")
        low = self.delta + math.exp(min(self.epsilon, 700.0)) * rate
        return min(low, 1 - math.exp(-self.epsilon) * max(1 - self.delta - rate, 0.0), 1.0)


@dataclass(frozen=True)
class OperatingPoint:
    """What an attack reached at one threshold: rates as seen, and limits that hold together."""

    false_positives: float
    true_positives: float
    false_positives_most: float
    true_positives_least: float
    name: str = ""

    def above(self, curve: Certified) -> bool:
        """Whether it lies above the curve even where its limits put it nearest."""
        if self.false_positives_most >= 1:
            return False
        return self.true_positives_least > curve.true_positives(self.false_positives_most)


def operating_points(
    without: ArrayLike,
    with_record: ArrayLike,
    *,
    ranks: Sequence[int] | None = None,
    confidence: float = 0.95,
    name: str = "",
) -> list[OperatingPoint]:
    """Points of an attack at thresholds declared as ranks; all limits hold at once.

    Args:
        without: one score of each run without the record; a higher one says that it was there.
        with_record: of each run with it.
        ranks: k of each threshold, the k-th largest score without; None are ``usual_ranks``.
        confidence: of all limits together: each errs by (1 − confidence) / (2 × points).

    >>> point, = operating_points(range(32), range(20, 52), ranks=[4])
    >>> point.false_positives, point.true_positives
    (0.125, 0.71875)
    """
    no, yes = np.asarray(without, float).ravel(), np.asarray(with_record, float).ravel()
    check(no.size >= 2 and yes.size >= 2, "scores", (no.size, yes.size), "must be two or more each")
    finite = np.isfinite(no).all() and np.isfinite(yes).all()
    check(bool(finite), "scores", "not finite", "must be numbers", "look at the attack's score")
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")
    declared = sorted(set(usual_ranks(no.size) if ranks is None else ranks))
    one = 1 - (1 - confidence) / len(declared)  # two limits a point, each by half of the rest
    down = np.sort(no)[::-1]
    points = []
    for k in declared:
        check(1 <= k <= no.size, "rank", k, f"must lie in 1 … {no.size}")
        threshold = down[k - 1]
        false, true = int((no >= threshold).sum()), int((yes > threshold).sum())
        least = clopper_pearson(true, yes.size, one)[0]
        # above the threshold are k − 1 of the scores without
        most = clopper_pearson(k - 1, no.size, one)[1]
        points.append(OperatingPoint(false / no.size, true / yes.size, most, least, name))
    return points


def usual_ranks(runs: int) -> list[int]:
    """Thresholds that are declared where none are: few, since each costs confidence.

    >>> usual_ranks(32)
    [1, 8, 24]
    """
    return sorted({1, max(1, runs // 4), max(1, (3 * runs) // 4)})


def epsilon_of_points(points: Iterable[OperatingPoint], delta: float) -> float:
    """ε from below by points whose limits hold together; it assumes nothing of the mechanism.

    ε ≥ log((TPR − δ) / FPR) and ε ≥ log((TNR − δ) / FNR) [Jagielski et al. 2020].
    """
    check_delta(delta)
    best = 0.0
    for point in points:
        tpr, fpr = point.true_positives_least, point.false_positives_most
        for hit, miss in ((tpr, fpr), (1 - fpr, 1 - tpr)):
            if hit > delta and miss > 0:
                best = max(best, math.log((hit - delta) / miss))
    return best


def mu_of_points(points: Iterable[OperatingPoint]) -> float:
    """μ from below of a mechanism whose trade-off is a Gaussian's [Nasr et al. 2023, Sec. 4].

    μ ≥ Φ⁻¹(TPR) − Φ⁻¹(FPR), of limits that hold together.
    """
    best = 0.0
    for point in points:
        if point.true_positives_least > 0 and point.false_positives_most < 1:
            apart = ndtri(point.true_positives_least) - ndtri(point.false_positives_most)
            best = max(best, float(apart))
    return best


def mu_of_normal_scores(
    without: ArrayLike, with_record: ArrayLike, *, confidence: float = 0.95
) -> float:
    """μ from below where scores are normal with one deviation, by the noncentral t.

    It assumes a Gaussian trade-off and normal scores, as those of an attack are that is linear in
    Gaussian noise; then the distance of the means over the deviation is at most the mechanism's μ,
    and t has 2 less degrees of freedom than runs. Equal variances are the assumption, not a test.

    >>> round(mu_of_normal_scores([0, 1, 2, 3], [4, 5, 6, 7]), 3)
    1.173
    """
    no, yes = np.asarray(without, float).ravel(), np.asarray(with_record, float).ravel()
    check(no.size >= 2 and yes.size >= 2, "scores", (no.size, yes.size), "must be two or more each")
    free = no.size + yes.size - 2
    pooled = ((no - no.mean()) ** 2).sum() + ((yes - yes.mean()) ** 2).sum()
    unit = math.sqrt(1 / no.size + 1 / yes.size)
    if not pooled > 0:
        return 0.0  # no spread: nothing is normal here
    t = float(yes.mean() - no.mean()) / math.sqrt(pooled / free) / unit
    law = scipy.stats.nct

    def excess(centre: float) -> float:
        return float(law.sf(t, free, centre)) - (1 - confidence)

    if t <= 0 or excess(0.0) >= 0:
        return 0.0
    # beyond t the tail is half at least
    return float(scipy.optimize.brentq(excess, 0.0, t)) * unit


def epsilon_of_mu(mu: float, delta: float) -> float:
    """ε at this δ of a Gaussian trade-off: what a μ from below shows."""
    check_delta(delta)
    return gaussian_epsilon(mu, delta)[0] if mu > 0 else 0.0
