"""The Gaussian mechanism in closed form: δ of ε, and ε of δ, with what rounding may do."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize
from scipy.special import erfcx, log_ndtr

_EPS = float(np.finfo(np.float64).eps)


def gaussian_log_delta(mu: float, epsilon: float) -> tuple[float, float]:
    """log δ(ε) of Gaussian noise with sensitivity μ times its deviation, and its error.

    δ = Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ) [Balle, Wang 2018, Theorem 8]; with x = ε/μ − μ/2 it is
    φ(x) times a difference of Mills ratios, at x and at x + μ, whose logarithms do not cancel.

    >>> log_delta, error = gaussian_log_delta(1.0, 1.0)
    >>> round(math.exp(log_delta), 8), error < 1e-13
    (0.12693674, True)
    """
    x = epsilon / mu - mu / 2
    scale = 1 + x * x + abs(epsilon)
    if x > -5:
        near, far = float(erfcx(x / math.sqrt(2))), float(erfcx((x + mu) / math.sqrt(2)))
        if far >= near:
            return -math.inf, math.inf
        error = 8 * _EPS * (scale + (1 + abs(x)) * near / (near - far))
        return -x * x / 2 + math.log((near - far) / 2), error
    first = float(log_ndtr(-x))
    ratio = epsilon + float(log_ndtr(-x - mu)) - first
    return first + math.log1p(-math.exp(ratio)), 8 * _EPS * scale


def gaussian_epsilon(mu: float, delta: float) -> tuple[float, float]:
    """ε at this δ of Gaussian noise with sensitivity μ times its deviation, and its error.

    >>> epsilon, error = gaussian_epsilon(1.0, 1e-5)
    >>> round(epsilon, 9), error < 1e-13
    (4.377178096, True)
    """
    log_delta = math.log(delta)
    if mu == 0:
        return 0.0, 0.0
    high = mu * (mu / 2 + math.sqrt(-2 * log_delta) + 1)  # more than by zero-concentration
    at_zero, error = gaussian_log_delta(mu, 0.0)
    if error > 0.1:  # rounding leaves nothing of δ
        return 0.0, high
    if at_zero + 2 * error <= log_delta:
        return 0.0, 0.0
    if at_zero <= log_delta:
        return 0.0, high

    def excess(epsilon: float) -> float:
        return max(gaussian_log_delta(mu, epsilon)[0], -1e6) - log_delta

    epsilon = float(optimize.brentq(excess, 0.0, high, xtol=1e-300, rtol=4 * _EPS, maxiter=300))
    _, error = gaussian_log_delta(mu, epsilon)
    # −d log δ/dε = exp(ε) Φ(−μ/2 − ε/μ)/δ
    slope = math.exp(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)) - log_delta)
    return epsilon, (error + abs(log_delta) * _EPS) / slope + 8 * _EPS * epsilon
