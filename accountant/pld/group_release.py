"""One release of a sampled group in closed form: a binomial mixture of Gaussians, either way."""

from __future__ import annotations

import math

import numpy as np

from accountant.dominating_pairs.of_events import binomial
from accountant.dominating_pairs.pairs import Array, log_sum
from accountant.gaussian import gaussian_bounds, log_gap, where_it_falls_to

_EPS = float(np.finfo(np.float64).eps)


def group_bounds(
    q: float, noise: float, size: int, log_delta: float, off: float
) -> tuple[float, float]:
    r"""lower ≤ ε ≤ upper for the k records of one person, each sampled with probability q.

    In units of the noise Q = N(0, 1) and P = Σ_j b_j N(jμ, 1). The loss rises with the outcome
    z, so that δ at the loss of z = c is a sum over Gaussian releases, all terms positive: with
    r_j = exp(jμc − j²μ²/2) and g(x, y) = Φ(−x) − exp((y² − x²)/2) Φ(−y),

        P against Q:  Σ b_j g(c − jμ, c),    Q against P:  Σ b_j r_j g(−c, jμ − c) / Σ b_j r_j.
    """
    if q == 1:
        return gaussian_bounds(size / noise, log_delta, off)
    log_b, j, mu = np.array(binomial(size, q)), np.arange(1.0, size + 1), 1 / noise
    if size * mu > 1e100:
        return 0.0, math.inf
    b, b_error = log_b[1:], 8 * _EPS * (1 + size + np.abs(log_b[1:]))

    def log_ratio(c: float) -> tuple[Array, Array]:
        """log r_j and its error."""
        linear, square = j * mu * c, (j * mu) ** 2 / 2
        return linear - square, 4 * _EPS * (abs(linear) + square)

    def loss(c: float) -> tuple[float, float]:
        """log Σ b_j r_j and its error."""
        log_r, error = log_ratio(c)
        if log_r.max() < 600:
            change = np.exp(b) * np.expm1(log_r)
            total = float(change.sum())
            off_by = float((np.exp(b + log_r) * error + np.abs(change) * b_error).sum())
            if total > -0.5:
                return math.log1p(total), off_by / (1 + total) + 8 * _EPS * abs(total)
        value = float(log_sum(np.append(b + log_r, log_b[0])))
        return value, float((error + b_error).max()) + 8 * _EPS * (1 + abs(value))

    def removed(c: float) -> tuple[float, float]:
        value, error = log_gap(c - j * mu, np.full(size, c))
        return _log_total(b + value, error + b_error)

    def added(y: float) -> tuple[float, float]:
        log_r, ratio_error = log_ratio(-y)
        value, error = log_gap(np.full(size, y), y + j * mu)
        found, off_by = _log_total(b + log_r + value, error + ratio_error + b_error)
        total, total_error = loss(-y)
        return found - total, off_by + total_error

    far = 42.0 + 2 * size * mu  # beyond, no double is as small as δ
    lower = upper = 0.0
    for way, side in ((removed, 1), (added, -1)):
        low, high = where_it_falls_to(log_delta, off, way, (-far, far))
        value, error = loss(side * low)
        lower = max(lower, side * value - error)
        value, error = loss(side * high)
        upper = max(upper, side * value + error)
    return lower, upper


def _log_total(terms: Array, errors: Array) -> tuple[float, float]:
    """log Σ exp, and its error."""
    if np.isinf(errors).any():
        return -math.inf, math.inf
    total = float(log_sum(terms))
    return total, float(log_sum(terms + errors)) - total + 4 * _EPS * (1 + abs(total))
