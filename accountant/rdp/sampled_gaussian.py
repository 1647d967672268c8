"""Rényi curve of a Gaussian release over a Poisson sample, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accountant.errors import check

Array = NDArray[np.float64]

_REACH = 12.0  # standard deviations: a Gaussian tail beyond it weighs 4e-33
_NEGLIGIBLE = 50.0  # e-folds below the largest integrand: 2e-22
_ROUNDING = 2e-13  # added to every quadrature: its measured error stays below 5e-14
_LEAST_NOISE = 1e-3  # below it a closed bound is good enough
_DOMINANT = 40.0  # log of the second term over the first from which on Minkowski is exact


def check_orders(orders: ArrayLike) -> Array:
    orders = np.asarray(orders, dtype=np.float64)
    valid = orders.size > 0 and bool(np.all(orders > 1) and np.all(np.isfinite(orders)))
    check(valid, "orders", orders, "must be finite and above 1", "start at 1.01")
    return orders


def rdp_gaussian(noise_multiplier: float, orders: ArrayLike) -> Array:
    """Rényi divergence of one Gaussian release, at each order [Mironov 2017, Prop. 7].

    >>> rdp_gaussian(2.0, np.array([8.0]))
    array([1.])
    """
    orders = check_orders(orders)
    check(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "must be ≥ 0")
    if noise_multiplier == 0:
        return np.full(orders.shape, np.inf)
    with np.errstate(over="ignore"):
        return orders / 2 / noise_multiplier / noise_multiplier


def rdp_poisson_sampled_gaussian(
    sampling_rate: float, noise_multiplier: float, orders: ArrayLike
) -> Array:
    r"""Rényi divergence of one Gaussian release over a Poisson sample, at each order.

    With q the rate, σ the noise multiplier and z ~ N(0, 1), this is log(A) / (α − 1) for

        A = E[(1 + x)^α],   x = q (exp(z/σ − 1/(2σ²)) − 1),

    the larger of the two directions of add/remove [Mironov, Talwar, Zhang 2019, Theorem 4
    and Sec. 3.3]. Since E[x] = 0, A − 1 = E[(1 + x)^α − 1 − αx], whose integrand is never
    negative, so nothing cancels however small the divergence is. The integral is a
    trapezoidal sum over an even lattice, which converges geometrically because the integrand is
    analytic in a strip of half-width πσ; its measured relative error is below 5e-14, and the
    value is raised by 2e-13 so that rounding falls on the safe side.

    Minkowski's inequality in L^α, log A ≤ α log(1 − q + q exp((α − 1)/(2σ²))), takes the
    integral's place where the last term is e^40 or more, and exceeds it by e^−40 there; also
    below σ = 1e-3.

    Args:
        sampling_rate: q, in [0, 1].
        noise_multiplier: σ ≥ 0, the noise's standard deviation over the sensitivity.
        orders: any shape, each a real number > 1.

    Returns:
        Divergences in nats, of the shape of ``orders``; never negative, ∞ for σ = 0.

    >>> rdp_poisson_sampled_gaussian(0.01, 1.0, [1.5, 2.0]).round(9)
    array([0.00012725, 0.00017181])
    """
    orders = check_orders(orders)
    check(0 <= sampling_rate <= 1, "sampling_rate", sampling_rate, "must lie in [0, 1]")
    check(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "must be ≥ 0")
    if sampling_rate == 0 or math.isinf(noise_multiplier):
        return np.zeros(orders.shape)
    if sampling_rate == 1 or noise_multiplier == 0:
        return rdp_gaussian(noise_multiplier, orders)
    flat = orders.ravel()
    with np.errstate(over="ignore"):
        log_power = (flat - 1) / 2 / noise_multiplier / noise_multiplier + math.log(sampling_rate)
    log_a = flat * np.logaddexp(math.log1p(-sampling_rate), log_power)
    if noise_multiplier >= _LEAST_NOISE:
        open_ = np.flatnonzero(log_power < _DOMINANT)
        open_ = open_[np.argsort(flat[open_])]
        for block in _blocks(flat[open_], noise_multiplier):
            where = open_[block]
            log_a[where] = _log_moment(sampling_rate, noise_multiplier, flat[where])
    return (log_a / (flat - 1)).reshape(orders.shape) * (1 + _ROUNDING)


def _log_moment(q: float, sigma: float, alpha: Array) -> Array:
    """log A of ascending orders that share one lattice, by the trapezoidal rule."""
    step = min(0.5, 0.4 * sigma)  # strip of width πσ: e^(−2π·πσ/step) = 4e-22
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        log_terms = _log_integrand(q, sigma, alpha, _lattice(q, sigma, alpha, step))
        peak = np.maximum(log_terms.max(axis=1, keepdims=True), -1e300)  # −∞ if all vanish
        total = np.exp(log_terms - peak).sum(axis=1)
        return np.logaddexp(0.0, peak[:, 0] + np.log(total * step / math.sqrt(2 * math.pi)))


def _blocks(ascending: Array, sigma: float) -> Iterator[slice]:
    """Orders to share a lattice: alike, and few where it is long."""
    start = 0
    while start < ascending.size:
        alike = ascending[start:] < 64 * ascending[start]
        near = ascending[start:] < 100 * sigma
        size = max(int((alike & near).sum()), min(8, int(alike.sum())))
        yield slice(start, start + size)
        start += size


def _lattice(q: float, sigma: float, alpha: Array, step: float) -> Array:
    """The multiples of ``step`` at which the integrand of any order is not negligible.

    Left of −_REACH and right of max(α, 2)/σ + _REACH a Gaussian bounds it. Where that is far,
    cells about one wide are dropped in between when they and their neighbours are negligible:
    the logarithm of (1 + x)^α exp(−u²/2) has a second derivative ≥ −1, so inside a cell it is at
    most 1/8 above the larger end.
    """
    stop = max(alpha[-1], 2.0) / sigma + _REACH
    stride = max(1, round(1 / step))
    edges = np.arange(math.floor(-_REACH / step), math.ceil(stop / step) + stride, stride)
    if edges.size * stride > 400:
        log_terms = _log_integrand(q, sigma, alpha, edges * step)
        matters = (log_terms > log_terms.max(axis=1, keepdims=True) - _NEGLIGIBLE).any(axis=0)
        for _ in range(2):
            matters[1:] |= matters[:-1]
            matters[:-1] |= matters[1:]
        edges = edges[matters]
    nodes = (edges[:, None] + np.arange(stride)).ravel() * step
    return np.asarray(nodes, dtype=np.float64)


def _log_integrand(q: float, sigma: float, alpha: Array, u: Array) -> Array:
    """log((1 + x)^α − 1 − αx) − u²/2, of shape (orders, nodes), for ascending orders."""
    w = (u - 0.5 / sigma) / sigma
    x = np.where(w < 700, q * np.expm1(np.minimum(w, 700)), np.exp(w + math.log(q)))
    log_ratio = np.where(w < 700, np.log1p(np.minimum(x, 1e305)), math.log(q) + w)
    near = np.abs(x) < min(1 / alpha[-1], 0.15)
    excess = np.empty((alpha.size, u.size))

    # Binomial series: ratios of terms below 0.15 or factorial, so 24 terms leave 1e-18.
    k = np.arange(2, 26)
    coefficients = np.cumprod((alpha[:, None] - k + 1) / k, axis=1) * alpha[:, None]
    series = coefficients @ x[near] ** k[:, None]
    excess[:, near] = np.log(np.maximum(series, 0.0))

    far = ~near
    log_1px, less = log_ratio[far], alpha[:, None] - 1
    direct = (1 + x[far]) * np.expm1(less * log_1px) - less * x[far]
    in_logs = np.log(np.maximum(direct, 0.0))
    if alpha[-1] * log_1px.max(initial=0.0) > 600:  # where exp would overflow
        order, node = np.nonzero(alpha[:, None] * log_1px > 600)
        a, log_x = alpha[order], log_1px[node]
        correction = np.exp((1 - a) * log_x) * (a - (a - 1) * np.exp(-log_x))
        in_logs[order, node] = a * log_x + np.log1p(-correction)
    excess[:, far] = in_logs
    excess -= u * u / 2
    return excess
