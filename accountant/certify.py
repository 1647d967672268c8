"""From δ(ε) between bounds to ε between bounds, refined until the interval is narrow enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import optimize

from accountant.contour import Inversion, Saddle, Sum, TooFine, place, saddle

_ATTEMPTS = 8
_TIMID = 0.8  # of the width asked for, what smoothing may take at first


def epsilon_bounds(
    total: Sum, delta: float, width: Callable[[float], float], enough: float = 0.0
) -> tuple[float, float]:
    """lower ≤ max(ε, 0) ≤ upper for the ε at which the sum's δ(ε) = δ.

    ``width`` gives the wanted upper − lower at an ε. Stops early where ε ≤ ``enough``, which
    already stands from elsewhere.
    """
    near = saddle(total, log_delta=math.log(delta))
    ceiling = _rdp_epsilon(near)
    if ceiling <= enough:
        return 0.0, ceiling
    lower, upper = 0.0, math.inf
    smoothing = _TIMID * width(max(near.epsilon, 0.0)) / (1 + near.slope)
    for _ in range(_ATTEMPTS):
        wanted = width(max(near.epsilon, 0.0))
        try:
            inversion = Inversion(total, place(total, near, smoothing, _slack(wanted, near)))
        except TooFine:
            smoothing *= 16
            if upper < math.inf:
                break
            continue
        low, high = _crossings(inversion, delta, near, wanted)
        lower, upper = max(lower, low), min(upper, high)
        if upper <= 0:
            return 0.0, 0.0
        if upper - lower <= width(upper) or upper <= enough:
            break
        near = replace(near, epsilon=(low + high) / 2 if low > 0 else high)
        smoothing *= min(0.7 * width(upper) / (high - low), 0.5)
    return lower, upper


def delta_bounds(total: Sum, epsilon: float, width: float) -> tuple[float, float]:
    """lower ≤ δ(ε) ≤ upper, of a width relative to δ."""
    near = saddle(total, epsilon=epsilon)
    lower, upper = 0.0, 1.0
    smoothing = _TIMID * width / (1 + near.slope) ** 2
    for _ in range(_ATTEMPTS):
        try:
            inversion = Inversion(total, place(total, near, smoothing, width / 40))
        except TooFine:
            smoothing *= 16
            continue
        low, high = inversion.delta(epsilon)
        lower, upper = max(lower, low), min(upper, high)
        if upper - lower <= width * upper or upper < 1e-300:
            break
        near = replace(near, log_delta=math.log(upper))
        smoothing *= min(0.7 * width * upper / (high - low), 0.5)
    return lower, upper


def _slack(wanted: float, near: Saddle) -> float:
    """Aliases may take a fortieth of the width; δ changes by about slope × width over it."""
    return min(max(wanted * near.slope / 40, 1e-12), 1e-2)


def _rdp_epsilon(near: Saddle) -> float:
    """An upper bound from the moments alone [Canonne, Kamath, Steinke 2020, Prop. 12]."""
    t = near.tilts
    epsilon = (near.moments * (1 + 1e-9) - near.log_delta - np.log1p(t)) / t + np.log(t / (1 + t))
    return max(float(np.nanmin(epsilon)), 0.0)


def _crossings(
    inversion: Inversion, delta: float, near: Saddle, wanted: float
) -> tuple[float, float]:
    """An ε whose δ is surely at least δ, and one whose δ is surely at most δ."""
    step = max(wanted, 1 / near.slope)
    tolerance = max(wanted * 1e-3, 4e-16 * abs(near.epsilon), 1e-300)
    found = []
    for side in (0, 1):

        def excess(epsilon: float, side: int = side) -> float:
            return math.log(max(inversion.delta(epsilon)[side], 1e-320)) - math.log(delta)

        low, high, reach = near.epsilon - step, near.epsilon + step, step
        while excess(low) < 0 and reach < 1e9 * step:
            low, reach = low - 2 * reach, 2 * reach
        reach = step
        while excess(high) > 0 and reach < 1e9 * step:
            high, reach = high + 2 * reach, 2 * reach
        if excess(low) < 0 or excess(high) > 0:
            found.append(-math.inf if side == 0 else math.inf)
            continue
        root = float(optimize.brentq(excess, low, high, xtol=tolerance, rtol=1e-15))
        outward = -tolerance if side == 0 else tolerance
        while (excess(root) < 0) if side == 0 else (excess(root) > 0):
            root, outward = root + outward, 2 * outward
        found.append(root)
    return found[0], found[1]
