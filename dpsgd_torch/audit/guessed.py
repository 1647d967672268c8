"""Coins guessed from scores, and the lower bounds on ε that so many right guesses prove."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accountant.auditing.one_run import epsilon_f_dp, epsilon_gaussian, epsilon_one_run
from accountant.auditing.operating import OperatingPoint, operating_points
from accountant.auditing.planned_guesses import guesses_for

BOUNDS: dict[str, Callable[..., float]] = {
    "binomial": epsilon_one_run,
    "f-DP": epsilon_f_dp,
    "Gaussian f-DP": epsilon_gaussian,
}
_FREE = ("binomial", "f-DP")  # the bounds that assume nothing of the mechanism
_GAUSSIAN = ("Gaussian f-DP",)  # of a Gaussian's trade-off, which Poisson samples have not
FROM_OUTSIDE = "mechanism as seen from outside"
_RATES = (0.01, 0.1)  # of false positives, where points of the trade-off are told

Scores = NDArray[np.float64]
Coins = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Guessed:
    """How many coins of how many canaries were guessed right, and what ε is at least by that.

    ``bounds`` holds each bound by itself; ``best`` is the better of those that assume nothing of
    the mechanism, each at the confidence that pays for having looked at both.
    """

    canaries: int
    guesses: int
    correct: int
    confidence: float
    bounds: dict[str, float]
    best: float
    points: tuple[OperatingPoint, ...]
    """Of the same scores; their limits hold where canaries are independent of one another."""

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return asdict(self)


def guessed(
    scores: Scores,
    coins: Coins,
    *,
    epsilon: float,
    delta: float,
    confidence: float,
    sampled: bool = False,
) -> Guessed:
    """Guess the surest coins; how many follows from the certified ε alone, so it costs nothing.

    Where batches are ``sampled`` no bound is told that holds for a Gaussian's trade-off alone.
    """
    m = len(coins)
    r = guesses_for(m, epsilon=epsilon, delta=delta, confidence=confidence)
    order, half = np.argsort(scores, kind="stable"), r // 2
    right = int(coins[order[m - half :]].sum() + half - coins[order[:half]].sum())

    def at(name: str, confidence: float) -> float:
        return BOUNDS[name](m, r, right, delta=delta, confidence=confidence)

    told = [name for name in BOUNDS if not (sampled and name in _GAUSSIAN)]
    paid = 1 - (1 - confidence) / len(_FREE)
    return Guessed(
        canaries=m,
        guesses=r,
        correct=right,
        confidence=confidence,
        bounds={name: at(name, confidence) for name in told},
        best=max(at(name, paid) for name in _FREE),
        points=_points(scores, coins, confidence),
    )


def likelihood_ratio(shown: Scores, sigma: float, rate: float) -> Scores:
    """log of p(shown | in) / p(shown | out), for a canary that joins by that rate."""
    ratio = (2 * shown - 1) / (2 * sigma**2)
    away = np.log1p(-rate) if rate < 1 else -np.inf
    found: Scores = np.logaddexp(away, np.log(rate) + ratio)
    return found


def _points(scores: Scores, coins: Coins, confidence: float) -> tuple[OperatingPoint, ...]:
    out, members = scores[~coins], scores[coins]
    if min(out.size, members.size) < 2:
        return ()
    ranks = sorted({max(1, round(rate * out.size)) for rate in _RATES})
    found = operating_points(out, members, ranks=ranks, confidence=confidence, name="canaries")
    return tuple(found)
