r"""Rényi curve of random allocation: moments of a sum of independent lognormal ratios.

With S = (1/t) Σ Y_i as in ``accountant.dominating_pairs.allocation`` and P removed,
exp((α − 1) D_α(P‖Q)) = E_Q[S^α]. For whole α it is a sum over the ways to spread α among the t
releases [Feldman, Shenfeld 2025, sum it by partitions]; by generating functions

    E_Q[(Σ Y_i)^α] = α! [x^α] (Σ_m E[Y^m] x^m/m!)^t,    E[Y^m] = exp(m(m − 1)/(2σ²)),

a power of a power series of positive coefficients. Between whole orders (α − 1) D_α is convex.
In the other direction E_Q[S^(1−α)] is bounded by a law that is spread, or, S being at least the
geometric mean of the Y_i, by D_α(Q‖P) ≤ 1/(2σ²) + (α − 1)/(2tσ²).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from accountant.dominating_pairs.allocation import allocation_laws
from accountant.dominating_pairs.pairs import OUT_OF_REACH, log_sum

Array = NDArray[np.float64]

_HIGHEST = 256  # the order from which on nothing is gained for the allocation


def rdp_allocation(steps: int, noise_multiplier: float, orders: Array) -> Array:
    """Bound on the Rényi divergence of one of ``steps`` releases, in either direction.

    Args:
        steps: t ≥ 1 releases, of which a record is in one.
        noise_multiplier: σ > 0.
        orders: any shape, each a real number > 1.

    >>> [round(float(cost), 6) for cost in rdp_allocation(100, 2.0, np.array([2.0, 8.0]))]
    [0.002837, 0.011363]
    """
    mu = 1 / noise_multiplier
    bound = orders * mu * mu / 2  # of a mixture: at most that of its worst part
    low = orders <= _HIGHEST
    if steps > 1 and low.any():
        each = orders[low]
        both = np.maximum(_removed(steps, mu, each), _added(steps, noise_multiplier, each))
        bound[low] = np.minimum(bound[low], both)
    return np.asarray(bound)


def _removed(steps: int, mu: float, orders: Array) -> Array:
    log_a = _log_moments(steps, mu)
    floor = np.floor(orders).astype(int)
    part = orders - floor
    chord = (1 - part) * log_a[floor] + part * log_a[np.minimum(floor + 1, _HIGHEST)]
    return chord / (orders - 1)


@lru_cache(maxsize=64)
def _log_moments(steps: int, mu: float) -> Array:
    """log E_Q[S^m] for m from 0 up to the highest order, each rounded up."""
    m = np.arange(_HIGHEST + 1.0)
    one = m * (m - 1) * mu * mu / 2 - gammaln(m + 1)
    whole, n = None, steps
    while True:
        if n % 2:
            whole = one if whole is None else _times(whole, one)
        n //= 2
        if not n:
            break
        one = _times(one, one)
    assert whole is not None
    scale = gammaln(m + 1) - m * math.log(steps)
    found = whole + scale
    rounding = 1e-14 * (np.abs(whole) + np.abs(scale) + m * m * mu * mu + 1)
    found = np.maximum(found + rounding, 0.0)
    found[:2] = 0.0
    return np.asarray(found)


def _times(one: Array, other: Array) -> Array:
    """Logarithms of the coefficients of a product, whose terms are all positive."""
    found = np.empty(one.size)
    for m in range(one.size):
        found[m] = log_sum(one[: m + 1] + other[m::-1])
    return found


def _added(steps: int, noise_multiplier: float, orders: Array) -> Array:
    """By the law of S, and what it leaves out by Cauchy and Schwarz; or by the geometric mean."""
    mu, a = 1 / noise_multiplier, orders - 1
    mean = mu * mu / 2 + a * mu * mu / (2 * steps)
    try:
        law = allocation_laws(steps, noise_multiplier, 1)[0]
    except OUT_OF_REACH:
        return mean
    log_q, log_s = np.log(law.mass), np.log(law.ratio)
    moment = np.array([float(log_sum(log_q - each * log_s)) for each in a])
    rest = a * (mu * mu / 2) + a * a * mu * mu / steps + math.log(law.lost_q) / 2
    total = np.logaddexp(moment, rest) + (a + 2) * law.off
    return np.minimum(np.maximum(total, 0.0) / a, mean)
