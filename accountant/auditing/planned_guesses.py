"""How many coins to guess: chosen from what is certified, before any score is seen."""

from __future__ import annotations

import functools

import numpy as np
import scipy  # which loads its submodules when they are first used
from scipy.special import ndtr

from accountant.auditing.one_run import epsilon_one_run
from accountant.gaussian import gaussian_epsilon

_THRESHOLDS = np.linspace(0.0, 4.0, 33)


@functools.lru_cache(maxsize=64)
def guesses_for(canaries: int, *, epsilon: float, delta: float, confidence: float = 0.95) -> int:
    """The number of guesses, even, by which ``epsilon_one_run`` would show most.

    It looks at scores of a Gaussian mechanism of this ε: of N(0, 1) and N(μ, 1), of which the
    surest are guessed. The choice costs nothing, since it does not depend on the run.

    >>> guesses_for(1000, epsilon=8.0, delta=1e-5)
    184
    """
    mu = _mu(epsilon, delta)
    best, most = 2, -1.0
    for threshold in _THRESHOLDS:
        right = canaries * float(ndtr(mu - threshold - mu / 2))
        wrong = canaries * float(ndtr(-threshold - mu / 2))
        guesses = min(canaries, 2 * round((right + wrong) / 2))
        if guesses < 2:
            break
        correct = min(guesses, int(right))
        shown = epsilon_one_run(canaries, guesses, correct, delta=delta, confidence=confidence)
        if shown > most:
            best, most = guesses, shown
    return best


def _mu(epsilon: float, delta: float) -> float:
    """The Gaussian mechanism's μ at this ε."""

    def excess(mu: float) -> float:
        return gaussian_epsilon(mu, delta)[0] - epsilon

    if excess(1e-3) >= 0:
        return 1e-3
    return float(scipy.optimize.brentq(excess, 1e-3, 30.0)) if excess(30.0) > 0 else 30.0
