"""Rényi curve of a Gaussian release over a sample of fixed size, by a published bound."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accountant.errors import check
from accountant.rdp.sampled_gaussian import check_orders, rdp_gaussian

Array = NDArray[np.float64]

_ROUNDING = 2e-13
_EPS = float(np.finfo(np.float64).eps)
_HIGHEST = 1 << 17  # the order from which on nothing is gained for the sampling
_DENSE = 1024  # up to here every even moment is computed, beyond it one in a hundred or so
_STEP = 0.25  # of the trapezoidal rule; halving it moves no moment by more than rounding
_REACH = 12.0  # standard deviations: a Gaussian tail beyond it weighs 4e-33


def rdp_fixed_size_gaussian(
    sampling_rate: float, noise_multiplier: float, orders: ArrayLike
) -> Array:
    r"""Bound on the Rényi divergence of a Gaussian release over a sample of fixed size.

    The sample is drawn without replacement and neighbours differ by one record replaced. With q
    the rate, σ the noise multiplier and a whole order α, the divergence is at most log(A)/(α − 1)
    for

        A = 1 + Σ_{j=2}^{α} C(α, j) q^j min(4 √(B(2⌊j/2⌋) B(2⌈j/2⌉)), 2 exp(j(j − 1)/(2σ²))),
        B(l) = Σ_{i=0}^{l} (−1)^(l−i) C(l, i) exp(i(i − 1)/(2σ²)),

    [Wang, Balle, Kasiviswanathan 2019, Theorem 27]. The divergence times α − 1 is convex in α
    and zero at α = 1, so between whole orders log A is interpolated linearly [Corollary 10
    there]. The unsampled α/(2σ²) holds too; it is returned where it is less, and from α = 2^17.

    The differences B(l) cancel to nothing in doubles, but are the moments E[(exp(x) − 1)^l],
    x ~ N(−1/(2σ²), 1/σ²), of even order: an integral of what is never negative.

    Args:
        sampling_rate: q, in [0, 1]: the size of the sample over that of the data.
        noise_multiplier: σ ≥ 0, the noise's standard deviation over how far replacing one
            record moves the sum.
        orders: any shape, each a real number > 1.

    Returns:
        Upper bounds in nats, of the shape of ``orders``; never negative, ∞ for σ = 0.

    >>> [round(float(cost), 9) for cost in rdp_fixed_size_gaussian(0.01, 2.5, [2.0, 2.5, 32.0])]
    [6.9402e-05, 9.2772e-05, 0.00121294]
    """
    orders = check_orders(orders)
    check(0 <= sampling_rate <= 1, "sampling_rate", sampling_rate, "must lie in [0, 1]")
    check(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "must be ≥ 0")
    if sampling_rate == 0 or math.isinf(noise_multiplier):
        return np.zeros(orders.shape)
    unsampled = rdp_gaussian(noise_multiplier, orders)
    if sampling_rate == 1 or noise_multiplier == 0:
        return unsampled
    bound = np.array(unsampled)
    low = orders < _HIGHEST
    if low.any():
        published = published_bound(sampling_rate, noise_multiplier, orders[low])
        bound[low] = np.minimum(published, unsampled[low])
    return bound


def published_bound(q: float, sigma: float, alpha: Array) -> Array:
    """The bound of the paper alone, for 0 < q < 1 and 0 < σ < ∞."""
    floor, ceiling = np.floor(alpha), np.ceil(alpha)
    whole, where = np.unique(np.concatenate([floor, ceiling]), return_inverse=True)
    log_a = _log_a(q, sigma, whole)[where]
    below, above = log_a[: alpha.size], log_a[alpha.size :]
    t = alpha - floor
    with np.errstate(invalid="ignore"):  # 0 · ∞ where the noise is next to nothing
        chord = np.where(t > 0, (1 - t) * below + t * above, below)
    return chord / (alpha - 1) * (1 + _ROUNDING)


def _log_a(q: float, sigma: float, whole: Array) -> Array:
    """log A at ascending whole orders, from one table of the terms they share."""
    j = np.arange(2.0, max(whole[-1], 2.0) + 1)
    log_a = np.zeros(whole.shape)
    with np.errstate(over="ignore", under="ignore"):
        moments = _log_moments(sigma, j)
        powers = j * math.log(q)
        for n in np.flatnonzero(whole > 1):
            size = int(whole[n]) - 1
            factors = (whole[n] + 1 - j[:size]) / j[:size]
            ways = math.log(whole[n]) + np.cumsum(np.log(factors))  # log C(α, j)
            terms = ways + powers[:size] + moments[:size]
            # Large logarithms that all but cancel leave their rounding behind.
            terms += 4 * _EPS * (ways - powers[:size] + np.abs(moments[:size]))
            peak = min(float(terms.max()), 1e300)
            log_a[n] = np.logaddexp(0.0, peak + np.log(np.exp(terms - peak).sum()))
    return log_a


def _log_moments(sigma: float, j: Array) -> Array:
    """log min(4 √(B(2⌊j/2⌋) B(2⌈j/2⌉)), 2 exp(j(j − 1)/(2σ²))) at j = 2, 3, …

    By Lyapunov's inequality log E|exp(x) − 1|^l is convex in l: a chord between even l bounds it
    in between, and one between neighbouring even l is the formula itself.
    """
    simple = math.log(2) + j * (j - 1) / 2 / sigma / sigma
    even = _worthwhile(sigma, float(j[-1]) + 1)
    if even.size:
        inside = j <= even[-1]
        chord = math.log(4) + np.interp(j[inside], even, _log_even_moments(sigma, even))
        simple[inside] = np.minimum(simple[inside], chord)
    return simple


def _worthwhile(sigma: float, highest: float) -> Array:
    """Even l up to ``highest`` at which 4 B(l) may be below 2 exp(l(l − 1)/(2σ²)), and the next.

    Under the law tilted l-fold B(l) exp(−l(l − 1)/(2σ²)) = E[(1 − exp(−x))^l], which Bernoulli's
    inequality puts above 1 − l E[exp(−x)] = 1 − l exp(−(l − 1)/σ²).
    """
    dense = np.arange(2.0, min(highest, _DENSE) + 1, 2)
    count = max(math.ceil(100 * math.log(highest / _DENSE)), 0)
    sparse = 2 * np.ceil(np.geomspace(_DENSE, highest, count + 1)[1:] / 2)
    even = np.unique(np.concatenate([dense, sparse]))
    with np.errstate(over="ignore"):
        never = np.log(even) - (even - 1) / sigma / sigma <= -math.log(2)
    if never[0]:
        return even[:0]
    return even[: int(np.argmax(never)) + 1] if never.any() else even


def _log_even_moments(sigma: float, even: Array) -> Array:
    """log B(l) at ascending even l, by the trapezoidal rule.

    Either side of x = 0 the integrand falls from its one peak at least as fast as a Gaussian;
    the peaks lie within √l to the left and l/σ + √l + 1/σ to the right.
    """
    mu, parts, start = 1 / sigma, [], 0
    while start < even.size:
        stop = int(np.searchsorted(even, 4 * even[start], "right"))  # to share a lattice
        power, root = even[start:stop, None], math.sqrt(even[stop - 1])
        right = float(even[stop - 1]) * mu + root + mu + _REACH
        u = _STEP * np.arange(-math.ceil((root + _REACH) / _STEP), math.ceil(right / _STEP) + 1)
        x = mu * (u - mu / 2)
        with np.errstate(over="ignore", divide="ignore"):
            log_terms = power * np.where(x < 40, np.log(np.abs(np.expm1(x))), x) - u * u / 2
        peak = log_terms.max(axis=1, keepdims=True)
        parts.append(peak[:, 0] + np.log(np.exp(log_terms - peak).sum(axis=1)))
        start = stop
    return np.concatenate(parts) + math.log(_STEP / math.sqrt(2 * math.pi))
