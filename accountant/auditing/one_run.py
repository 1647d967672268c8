"""One-run audit: ε from below by how many coins of many canaries were guessed right, all at once.

m canaries are each put in or left out by a fair coin of its own; an attacker who sees all that is
released guesses r of the coins and abstains from the rest. How many are right is bounded for every
(ε, δ)-private mechanism, though all guesses come from a single run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy  # which loads its submodules when they are first used
from scipy.special import ndtr, ndtri

from accountant.errors import check, check_delta
from accountant.gaussian import gaussian_epsilon

_MOST = 200.0  # no audit of fewer than e^200 canaries shows more
_HALVINGS = 50


def check_guesses(canaries: int, guesses: int, correct: int, confidence: float) -> None:
    """Refuse counts that no audit has."""
    check(canaries >= 1, "canaries", canaries, "must be at least 1")
    check(0 <= guesses <= canaries, "guesses", guesses, f"must lie in 0 … {canaries}")
    check(0 <= correct <= guesses, "correct", correct, f"must lie in 0 … {guesses}")
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")


def p_value_one_run(
    canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """The chance of so many right guesses, at most, if the run is (ε, δ)-private.

    P(W ≥ v) + 2mδ · max_i P(v − i ≤ W < v) / i, with W binomial of r trials at e^ε / (1 + e^ε)
    [Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run", Theorem 5.2].

    >>> round(p_value_one_run(100, 10, 9, 0.0, 0.0), 6)  # eleven of 1024 outcomes of fair coins
    0.010742
    """
    right = 1 / (1 + math.exp(-epsilon))
    beyond = float(scipy.stats.binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return min(1.0, beyond)
    below = np.cumsum(scipy.stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    steepest = float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, beyond + 2 * canaries * delta * steepest)


def epsilon_one_run(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """ε from below at this δ, by the binomial bound [Steinke, Nasr, Jagielski 2023, Theorem 5.2].

    Args:
        canaries: how many had a coin, m.
        guesses: how many coins were guessed, r, fixed before scores were seen.
        correct: how many of these were right, v.
        delta: δ of the guarantee that is tested.
        confidence: the bound is above the truth in 1 − confidence of all audits at most.

    Raises:
        InvalidValue: counts that no audit has.

    >>> round(epsilon_one_run(1000, 1000, 700, delta=1e-5), 3)
    0.732
    """
    check_guesses(canaries, guesses, correct, confidence)
    check_delta(delta)

    def rejected(epsilon: float) -> bool:
        return p_value_one_run(canaries, guesses, correct, epsilon, delta) <= 1 - confidence

    return largest(rejected)


def epsilon_f_dp(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """ε from below at this δ, by f-DP of the curve that (ε, δ) is [Mahloujifar et al. 2024].

    It assumes no more than ``epsilon_one_run``, whose arguments it takes.

    >>> round(epsilon_f_dp(1000, 1000, 700, delta=1e-5), 3)
    0.726
    """
    check_guesses(canaries, guesses, correct, confidence)
    check_delta(delta)

    def rejected(epsilon: float) -> bool:
        def least_wrong(right: float) -> float:
            # 1 − f(x) = min(δ + e^ε x, 1 − e^−ε (1 − δ − x)), turned round
            one = (right - delta) * math.exp(-epsilon)
            return max(0.0, one, 1 - delta - math.exp(epsilon) * (1 - right))

        return refuted(least_wrong, canaries, guesses, correct, 1 - confidence)

    return largest(rejected)


def mu_f_dp(canaries: int, guesses: int, correct: int, *, confidence: float = 0.95) -> float:
    """μ from below: that of no μ-GDP mechanism any smaller [Mahloujifar et al. 2024].

    What is shown is that the trade-off curve falls below that of N(0, 1) against N(μ, 1); it is
    ``gaussian_epsilon(μ, δ)`` in ε for mechanisms whose curve is one of these, as that of noise
    added to a sum is, and of no other.

    >>> round(mu_f_dp(1000, 1000, 700), 3)
    0.357
    """
    check_guesses(canaries, guesses, correct, confidence)

    def rejected(mu: float) -> bool:
        def least_wrong(right: float) -> float:
            return float(ndtr(ndtri(right) - mu)) if right > 0 else 0.0

        return refuted(least_wrong, canaries, guesses, correct, 1 - confidence)

    return largest(rejected, most=40.0)


def epsilon_gaussian(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """ε from below of a mechanism that is known to have a Gaussian's trade-off, by ``mu_f_dp``.

    >>> round(epsilon_gaussian(1000, 1000, 700, delta=1e-5), 3)
    1.372
    """
    mu = mu_f_dp(canaries, guesses, correct, confidence=confidence)
    check_delta(delta)
    return gaussian_epsilon(mu, delta)[0] if mu > 0 else 0.0


def refuted(
    least_wrong: Callable[[float], float],
    canaries: int,
    guesses: int,
    correct: int,
    significance: float,
) -> bool:
    """Whether so many right guesses have, under a trade-off curve, less than that chance.

    Args:
        least_wrong: the inverse of 1 − f, rising: how often an attacker who is right with that
            probability must at least be wrong. f is symmetric, convex: the curve that is tested.

    Let t_n be the chance of n right guesses or more of c', and m the canaries. For each coin, with
    the others fixed, f bounds how often it is guessed right while n or more of the others are by
    how often it is guessed wrong then; averaged over all coins (1 − f is concave)

        Σ_{i > n} i p_i / m ≤ 1 − f(Σ_{i ≥ n} (c' − i) p_i / m)  [Mahloujifar, Melis, Chaudhuri
        2024, "Auditing f-Differential Privacy in One Run", Theorem 9 and Algorithm 3],

    which in tails is t_n ≥ (m g(h) + Σ_{i > n} t_i) / (c' − n), g the inverse of 1 − f and
    h = ((n + 1) t_{n+1} + Σ_{i > n + 1} t_i) / m. The right side rises in every tail, so the least
    tails come one after the other from t_correct = significance; where t_0 would exceed 1 there are
    none.
    """
    tail, above = significance, 0.0  # t_{n+1}, and the sum of all beyond
    if tail > 1:
        return True
    for n in range(correct - 1, -1, -1):
        right = ((n + 1) * tail + above) / canaries
        above += tail
        tail = max(tail, (canaries * least_wrong(min(right, 1.0)) + above) / (guesses - n))
        if tail > 1:
            return True
    return False


def largest(rejected: Callable[[float], bool], most: float = _MOST) -> float:
    """The largest value that is rejected, from below; 0 where none is."""
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and rejected(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
