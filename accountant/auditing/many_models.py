"""Several independent models of many canaries each: how often coins are guessed, as a mean.

A guess of one fair coin is right with probability (TPR + TNR) / 2, whatever the other canaries do,
and a mechanism's trade-off curve bounds that. The share of right guesses in one model is a mean of
such guesses, dependent or not, and models are independent; so is tested whether shares that lie in
[0, 1] have a mean above what the curve allows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from accountant.errors import check


def accuracy_of_models(shares: ArrayLike, *, confidence: float = 0.95) -> float:
    """The mean share of right guesses from below, with no law of the shares assumed.

    Where their mean is p at most, the product of shares / p has a mean of 1 at most, and exceeds
    1 / (1 − confidence) as rarely as is said [Markov; the boldest bet of Waudby-Smith, Ramdas 2024,
    "Estimating means of bounded random variables by betting"]. It suits shares that differ little.

    Args:
        shares: of right guesses, one a model; who guesses looks at that model alone.
        confidence: of the bound.

    >>> round(accuracy_of_models([0.8] * 64), 4)  # 0.8 × 0.05^(1/64)
    0.7634
    """
    told = np.asarray(shares, float).ravel()
    check(told.size >= 1, "shares", told.size, "must be of 1 model at least")
    inside = bool(((told >= 0) & (told <= 1)).all())
    check(inside, "shares", "out of range", "must lie in [0, 1]")
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")
    if not told.all():
        return 0.0
    return float(np.exp(np.log(told).mean() + math.log(1 - confidence) / told.size))


def mu_of_models(shares: ArrayLike, *, confidence: float = 0.95) -> float:
    """μ from below of a mechanism whose trade-off is a Gaussian's: accuracy is Φ(μ/2) at most.

    >>> round(mu_of_models([0.84] * 64), 3)
    1.695
    """
    accuracy = accuracy_of_models(shares, confidence=confidence)
    return 2 * float(ndtri(accuracy)) if accuracy > 0.5 else 0.0


def epsilon_of_accuracy(accuracy: float, delta: float) -> float:
    """ε from below of any (ε, δ)-private mechanism: accuracy ≤ (exp(ε) + δ) / (1 + exp(ε)).

    >>> round(epsilon_of_accuracy(0.75, 0.0), 4)  # log 3
    1.0986
    """
    check(0 <= accuracy <= 1, "accuracy", accuracy, "must lie in [0, 1]")
    if accuracy <= 0.5:
        return 0.0
    return math.log(max(accuracy - delta, 0.5) / (1 - accuracy)) if accuracy < 1 else math.inf
