"""One-run test of a certified curve: have more coins been guessed right than it allows?"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from accountant.auditing.one_run import check_guesses, refuted
from accountant.auditing.operating import Certified

_EPSILONS = np.linspace(0.0, 16.0, 97)


def contradicts(
    curve: Certified, canaries: int, guesses: int, correct: int, *, significance: float = 0.05
) -> bool:
    """Whether so many right guesses have less than that chance under the curve.

    The whole curve is tested, not one (ε, δ) of it, by ``refuted`` [Mahloujifar, Melis, Chaudhuri
    2024]. It is replaced by lines that lie on it or above, so that no honest run is accused for it.

    Args:
        curve: symmetric, as a ``TradeOff`` is: it holds with either neighbour as the null.
        canaries: how many had a coin of their own, in all runs together.
        guesses: how many coins were guessed, fixed before scores were seen.
        correct: how many of these were right.
        significance: the chance to accuse an honest mechanism, at most.

    >>> from accountant.auditing.operating import Claim
    >>> contradicts(Claim(1.0, 1e-5), 1000, 1000, 700)
    False
    >>> contradicts(Claim(0.5, 1e-5), 1000, 1000, 700)
    True
    """
    check_guesses(canaries, guesses, correct, 1 - significance)
    deltas = _deltas(curve)
    ups = np.exp(_EPSILONS)

    def least_wrong(right: float) -> float:
        one = (right - deltas) / ups
        other = 1 - deltas - ups * (1 - right)
        least = max(0.0, float(one.max()), float(other.max()))
        return least if math.isfinite(least) else 0.0

    return refuted(least_wrong, canaries, guesses, correct, significance)


@functools.lru_cache(maxsize=8)
def _deltas(curve: Certified) -> NDArray[np.float64]:
    return np.array([curve.delta(float(epsilon)) for epsilon in _EPSILONS])
