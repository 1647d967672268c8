"""ε as what an attacker gains: the best true-positive rate at a false-positive rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from accountant.errors import check
from accountant.events import Event
from accountant.pld.accountant import PldAccountant

USUAL_RATES = (0.001, 0.01, 0.1)
_GRID = 25


def attacker_power(
    events: Iterable[tuple[Event, int]], false_positive_rates: Iterable[float] = USUAL_RATES
) -> list[float]:
    """The most true positives any attacker reaches at each false-positive rate α.

    Whoever decides from all that is released whether a record was used has, at every ε ≥ 0,
    TPR ≤ δ(ε) + exp(ε) α and, by the same with the roles exchanged,
    TPR ≤ 1 − exp(−ε) (1 − δ(ε) − α) [Kairouz, Oh, Viswanath 2015, Theorem 2.1]; the least over a
    grid of ε is reported, so the value is never below the truth. Guessing reaches α itself.

    >>> from accountant import Gaussian
    >>> [round(power, 3) for power in attacker_power([(Gaussian(noise_multiplier=1.0), 1)])]
    [0.018, 0.093, 0.389]
    """
    rates = list(false_positive_rates)
    for rate in rates:
        check(0 < rate < 1, "false_positive_rate", rate, "must lie in (0, 1)")
    accountant = PldAccountant()
    accountant.compose_all(events)
    if not accountant.events:
        return rates
    end = accountant.epsilon(1e-6).upper
    if math.isinf(end):
        return [1.0] * len(rates)
    epsilons = end * np.linspace(0.0, 1.0, _GRID) ** 1.5
    deltas = np.array([accountant.delta(float(e), width=1e-2).upper for e in epsilons])
    powers = []
    for rate in rates:
        with np.errstate(over="ignore"):
            direct = deltas + np.exp(epsilons) * rate
        converse = 1 - np.exp(-epsilons) * np.maximum(1 - deltas - rate, 0.0)
        powers.append(min(float(np.minimum(direct, converse).min()), 1.0))
    return powers
