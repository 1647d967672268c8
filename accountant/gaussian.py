"""The Gaussian mechanism in closed form: δ, ε and what an attacker gains."""

from __future__ import annotations

import math

from scipy import optimize
from scipy.special import log_ndtr

ROUNDING = 1e-12
"""Relative error of what is computed here, with room to spare."""


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """log δ(ε) of Gaussian noise with sensitivity μ times its deviation.

    δ = Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ) [Balle, Wang 2018, Theorem 8].

    >>> round(math.exp(gaussian_log_delta(1.0, 1.0)), 9)
    0.126936737
    """
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    ratio = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)) - first
    return first + math.log(-math.expm1(ratio)) if ratio < 0 else -math.inf


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The ε at which Gaussian noise with sensitivity μ times its deviation has this δ.

    >>> round(gaussian_epsilon(1.0, 1e-5), 9)
    4.377178096
    """
    if mu == 0 or gaussian_log_delta(mu, 0.0) <= math.log(delta):
        return 0.0
    high = mu * (mu / 2 + math.sqrt(-2 * math.log(delta)) + 1)

    def excess(epsilon: float) -> float:
        return max(gaussian_log_delta(mu, epsilon), -1e6) - math.log(delta)

    return float(optimize.brentq(excess, 0.0, high, xtol=1e-300, rtol=4e-15, maxiter=300))
