"""From δ(ε) between bounds to ε between bounds, refined until the interval is narrow enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from accountant.dominating_pairs.pairs import OUT_OF_REACH
from accountant.pld.contour import Inversion, log_moment_above, place
from accountant.pld.rare import rare_bounds
from accountant.pld.sums import Saddle, Sum, saddle

_ATTEMPTS = 12
_DEAR = 1 << 18  # nodes
_MOST_SMOOTHING = 100.0  # ς², so that exp(ς²/8) stays a number
_ROUGH = 1e-3  # of ε: found to this first, since a good contour must know where ε is
_DEEPEST = -1e6  # a number below any log δ
_LOST = 1e-6  # of δ
_TIMID = 0.8  # of the width asked for, what smoothing may take at first


def epsilon_bounds(
    total: Sum, delta: float, width: Callable[[float], float], enough: float = 0.0
) -> tuple[float, float]:
    """lower ≤ max(ε, 0) ≤ upper for the ε at which the sum's δ(ε) = δ.

    ``width`` gives the wanted upper − lower at an ε. Stops early where ε ≤ ``enough``, which
    already stands from elsewhere.

    Where large losses are rare and without a moment worth the name, their outcomes are set apart:
    for A with P(not A) ≤ κδ, E_P[(1 − exp(ε − L))₊; A] ≤ δ(ε) ≤ E_P[(1 − exp(ε − L))₊; A] + κδ.
    """
    lower, upper = _bounds(total, delta, width, enough)
    if upper <= enough or _narrow(lower, upper, width):
        return lower, upper
    if alike := total.alike:
        low, high = rare_bounds(*alike, delta)
        lower, upper = max(lower, low), min(upper, high)
        if _narrow(lower, upper, width):
            return lower, upper
    lost = min(_LOST, width(1.0) / 100)
    within = total.without_tails(math.log(delta) + math.log(lost))
    if within is None:
        return lower, upper
    low, high = _bounds(within, delta, width, enough, lost)
    return max(lower, low), min(upper, high)


def _narrow(lower: float, upper: float, width: Callable[[float], float]) -> bool:
    return upper < math.inf and upper - lower <= width(upper)


def _bounds(
    total: Sum, delta: float, width: Callable[[float], float], enough: float, lost: float = 0.0
) -> tuple[float, float]:
    """The same by one kind of sum, of whose outcomes ``lost`` × δ are missing."""
    lower, upper = total.ceiling(delta)
    if upper <= enough or _narrow(lower, upper, width):
        return lower, upper
    try:
        near = saddle(total, log_delta=math.log(delta) + math.log1p(-lost))
        return _refined(total, delta, width, enough, lost, near, (lower, upper))
    except OUT_OF_REACH:
        return lower, upper


def _refined(
    total: Sum,
    delta: float,
    width: Callable[[float], float],
    enough: float,
    lost: float,
    near: Saddle,
    known: tuple[float, float],
) -> tuple[float, float]:
    lower, upper = known
    if enough:
        upper = min(upper, _rdp_epsilon(total, near))
        if upper <= enough:
            return lower, upper
    rough, last, seen = _ROUGH, math.inf, math.inf
    smoothing = _TIMID * max(width(max(near.epsilon, 0.0)), rough * near.epsilon) / (1 + near.slope)
    for _ in range(_ATTEMPTS):
        epsilon = max(near.epsilon, 0.0)
        goal = max(width(epsilon), rough * epsilon)
        try:
            inversion = Inversion(
                total, place(total, near, min(smoothing, _MOST_SMOOTHING), _slack(goal, near))
            )
        except OUT_OF_REACH:
            if lost:  # what is left out was to make it easy
                break
            smoothing *= 4
            last = math.inf
            continue
        low, high = _crossings(inversion, delta, lost, near, goal)
        lower, upper = max(lower, low), min(upper, high)
        if upper <= 0:
            return 0.0, 0.0
        if upper - lower <= width(upper) or upper <= enough:
            break
        if low == 0 and high < 0.99 * seen:  # placed for an ε too large to tell it from below
            near, seen = replace(near, epsilon=high), high
            continue
        if high - low > 0.8 * last:
            break
        if inversion.count > (_DEAR >> 3 if lost else _DEAR):  # what is left is not worth a second
            break
        near = replace(near, epsilon=(low + high) / 2 if low > 0 else high)
        narrower = _TIMID * width(upper) / (high - low)
        if high - low > goal:
            narrower, last = min(narrower, 0.5), high - low
        else:
            rough = 0.0
        smoothing *= narrower
    return lower, upper


def delta_bounds(total: Sum, epsilon: float, width: float) -> tuple[float, float]:
    """lower ≤ δ(ε) ≤ upper, of a width relative to δ."""
    if epsilon >= total.ceiling(0.5)[1]:
        return 0.0, 0.0
    lower, upper = 0.0, 1.0
    try:
        near = saddle(total, epsilon=epsilon)
    except OUT_OF_REACH:
        return lower, upper
    smoothing = _TIMID * width / (1 + near.slope) ** 2
    for _ in range(_ATTEMPTS):
        try:
            inversion = Inversion(
                total, place(total, near, min(smoothing, _MOST_SMOOTHING), width / 40)
            )
        except OUT_OF_REACH:
            smoothing *= 16
            continue
        low = inversion.delta(epsilon + inversion.shift)[0]
        high = inversion.delta(epsilon - inversion.shift)[1]
        lower, upper = max(lower, low), min(upper, high)
        if upper - lower <= width * upper or upper < 1e-300:
            break
        near = replace(near, log_delta=math.log(upper))
        smoothing *= min(0.7 * width * upper / (high - low), 0.5)
    return lower, upper


def _slack(wanted: float, near: Saddle) -> float:
    """Aliases may take a fortieth of the width; δ changes by about slope × width over it."""
    return min(max(wanted * near.slope / 40, 1e-12), 1e-2)


def _rdp_epsilon(total: Sum, near: Saddle) -> float:
    """An upper bound from one moment alone [Canonne, Kamath, Steinke 2020, Prop. 12]."""
    t = near.tilts
    epsilon = (near.moments - near.log_delta - np.log1p(t)) / t + np.log(t / (1 + t))
    best = float(t[int(np.nanargmin(epsilon))])
    moment = log_moment_above(total, best, 0.0)
    return max(
        (moment - near.log_delta - math.log1p(best)) / best + math.log(best / (1 + best)), 0.0
    )


def _crossings(
    inversion: Inversion, delta: float, lost: float, near: Saddle, wanted: float
) -> tuple[float, float]:
    """An ε ≥ 0 whose δ is surely at least δ (or 0), and one whose δ is surely at most δ."""
    tolerance = max(wanted * 1e-3, 4e-16 * near.epsilon, 1e-300)
    start = max(near.epsilon, 0.0)

    log_delta = math.log(delta)
    levels = log_delta, log_delta + math.log1p(-lost)

    def excess(side: int) -> Callable[[float], float]:
        return lambda epsilon: max(inversion.log_delta(epsilon)[side], _DEEPEST) - levels[side]

    high = _descend(excess(1), start, near.slope, tolerance, outward=1.0)
    low = _descend(excess(0), high if high < math.inf else start, near.slope, tolerance, -1.0)
    if high == 0 and inversion.log_delta(-inversion.shift)[1] <= levels[1]:
        return 0.0, 0.0
    return max(low - inversion.shift, 0.0), high + inversion.shift


def _descend(
    excess: Callable[[float], float], start: float, slope: float, tolerance: float, outward: float
) -> float:
    """Where a falling function crosses zero, by secants, and then outward to the safe side."""
    epsilon, value = start, excess(start)
    for _ in range(60):
        if epsilon <= 0 and value <= 0:
            return 0.0 if outward > 0 else -math.inf
        if abs(value) <= tolerance * slope:
            break
        further = max(epsilon + min(max(value / slope, -10 / slope), 10 / slope), 0.0)
        next_value = excess(further)
        if further != epsilon and (value - next_value) / (further - epsilon) > 0:
            slope = (value - next_value) / (further - epsilon)
        epsilon, value = further, next_value
    step = tolerance
    for _ in range(60):
        if value * outward <= 0:
            return epsilon
        epsilon, step = epsilon + outward * step, 2 * step
        value = excess(epsilon)
    return outward * math.inf
