"""δ of ε from ε of δ, where the latter is known in closed form: one release alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import scipy  # which loads its submodules when they are first used

_LEAST = 1e-300
_HALVINGS = 64


def delta_by_inverse(
    epsilon_at: Callable[[float], tuple[float, float]], epsilon: float, precision: float
) -> tuple[float, float]:
    """lower ≤ δ(ε) ≤ upper, where the bounds on ε(δ) leave no doubt, to a relative precision.

    Where ε(δ) ≤ ε, δ(ε) ≤ δ; where ε(δ) > ε, δ(ε) > δ.

    >>> lower, upper = delta_by_inverse(lambda d: (-math.log(d),) * 2, 1.0, 1e-9)
    >>> round(lower, 8), round(upper, 8)
    (0.36787944, 0.36787944)
    """
    least = math.log(_LEAST)

    def enough(x: float) -> bool:
        return x >= 0 or epsilon_at(math.exp(x))[1] <= epsilon

    high, low = 0.0, -1.0
    while low > least and enough(low):
        high, low = low, max(2 * low, least)
    if epsilon > 0 and not enough(low):
        high = _root(lambda x: epsilon_at(math.exp(x))[1] - epsilon, low, high, epsilon, precision)
        step = precision / 8
        while not enough(high):
            high, step = min(high + step, 0.0), 2 * step
        low = high - precision / 4
    for _ in range(_HALVINGS):  # at ε = 0 there is no slope to go by
        if high - low <= precision / 2:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    step = precision / 8
    while low > least and epsilon_at(math.exp(low))[0] <= epsilon:
        low, step = max(low - step, least), 2 * step
    lower = math.exp(low) * (1 - 1e-15) if low > least else 0.0
    return lower, min(math.exp(high) * (1 + 1e-15), 1.0)


def _root(
    excess: Callable[[float], float], low: float, high: float, epsilon: float, precision: float
) -> float:
    def within(x: float) -> float:
        return min(excess(x), 1 + epsilon) if x < 0 else -epsilon

    return float(scipy.optimize.brentq(within, low, high, xtol=precision / 8))
