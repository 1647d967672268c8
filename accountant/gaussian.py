"""The Gaussian mechanism in closed form: δ of ε, and ε of δ, with what rounding may do."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_DOUBLINGS = 400  # from the last place of a number past any other


def log_gap(near: Array, far: Array) -> tuple[Array, Array]:
    """log{Φ(−x) − exp((y² − x²)/2) Φ(−y)} for x < y, and its error.

    It is φ(x) times a difference of Mills ratios, whose logarithms do not cancel.
    """
    scale = 1 + near * near + abs(far * far - near * near) / 2
    with np.errstate(all="ignore"):
        one, other = erfcx(near / math.sqrt(2)), erfcx(far / math.sqrt(2))
        value = -near * near / 2 + np.log((one - other) / 2)
        error = 8 * _EPS * (scale + (1 + abs(near)) * one / (one - other))
        first = log_ndtr(-near)
        ratio = (far * far - near * near) / 2 + log_ndtr(-far) - first
        rest = -np.expm1(ratio)
        apart, apart_error = first + np.log(rest), 8 * _EPS * scale * (1 + np.exp(ratio) / rest)
    value, error = np.where(near > -5, value, apart), np.where(near > -5, error, apart_error)
    known = np.isfinite(value) & np.isfinite(error)
    return np.where(known, value, -math.inf), np.where(known, error, math.inf)


def gaussian_log_delta(mu: float, epsilon: float) -> tuple[float, float]:
    """log δ(ε) of Gaussian noise with sensitivity μ times its deviation, and its error.

    δ = Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ) [Balle, Wang 2018, Theorem 8].

    >>> log_delta, error = gaussian_log_delta(1.0, 1.0)
    >>> round(math.exp(log_delta), 8), error < 1e-13
    (0.12693674, True)
    """
    x = epsilon / mu - mu / 2
    if abs(x) > 1e150 or mu > 1e150:  # where squares are none
        return -math.inf, math.inf
    value, error = log_gap(np.array([x]), np.array([x + mu]))
    return float(value[0]), float(error[0])


def gaussian_epsilon(mu: float, delta: float) -> tuple[float, float]:
    """ε at this δ of Gaussian noise with sensitivity μ times its deviation, and its error.

    >>> epsilon, error = gaussian_epsilon(1.0, 1e-5)
    >>> round(epsilon, 9), error < 1e-13
    (4.377178096, True)
    """
    lower, upper = gaussian_bounds(mu, math.log(delta), 0.0)
    if math.isinf(upper):
        return math.inf, math.inf
    return (lower + upper) / 2, (upper - lower) / 2 + _EPS * upper


def gaussian_bounds(mu: float, log_delta: float, off: float) -> tuple[float, float]:
    """lower ≤ ε ≤ upper at a δ whose logarithm is known to within ``off``."""
    if mu == 0 or log_delta - off >= 0:
        return 0.0, 0.0
    # More than by zero-concentration [Bun, Steinke 2016, Prop. 1.3].
    most = mu * (mu / 2 + math.sqrt(2 * (off - log_delta))) * (1 + 16 * _EPS)
    if math.isinf(most):
        return 0.0, math.inf
    lower, upper = (  # μ itself is rounded
        where_it_falls_to(
            log_delta, off, partial(gaussian_log_delta, mu * (1 + side * 4 * _EPS)), (0.0, most)
        )[(1 + side) // 2]
        for side in (-1, 1)
    )
    return lower, min(upper, most)


def where_it_falls_to(
    log_delta: float,
    off: float,
    log_delta_at: Callable[[float], tuple[float, float]],
    between: tuple[float, float],
) -> tuple[float, float]:
    """Where a falling log δ, known to within an error, surely is at least log δ, and at most.

    Found by bisection, then stepped outward until the error allows no doubt.
    """
    low, high = between

    def excess(x: float, side: int) -> float:
        value, error = log_delta_at(x)
        if math.isinf(error):
            return side * math.inf
        return value + side * (error + off + abs(log_delta) * _EPS) - log_delta

    if excess(low, 1) <= 0:
        return low, low
    if math.isinf(log_delta_at(low)[1]):
        return low, high

    def middle(x: float) -> float:
        return max(log_delta_at(x)[0], -1e6) - log_delta

    root = low
    if middle(low) > 0:
        root = high
        if middle(high) < 0:
            root = float(
                scipy.optimize.brentq(middle, low, high, xtol=1e-323, rtol=4 * _EPS, maxiter=300)
            )
    return _outward(excess, root, low, -1), _outward(excess, root, high, 1)


def _outward(excess: Callable[[float, int], float], root: float, end: float, side: int) -> float:
    """The first point from the root to the end at which what is wanted is sure, or the end."""
    step = max(4 * _EPS * abs(root), 1e-323)
    for _ in range(_DOUBLINGS):
        x = root + side * step
        if side * (x - end) >= 0:
            return end
        if side * excess(x, side) <= 0:
            return x
        step *= 2
    return end
