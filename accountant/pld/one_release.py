"""One release alone in closed form: no integral is needed where nothing is composed."""

from __future__ import annotations

import math

import numpy as np

from accountant.dominating_pairs.of_events import chance_shown, domination, is_free
from accountant.dominating_pairs.pairs import OUT_OF_REACH, Points
from accountant.events import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    NoCost,
    PoissonSampled,
    RandomAllocation,
    RandomizedResponse,
    Relation,
    ShuffledEpoch,
    TruncatedPoissonSampled,
)
from accountant.gaussian import gaussian_bounds, where_it_falls_to
from accountant.pld.group_release import group_bounds
from accountant.pld.rare import mixed

_EPS = float(np.finfo(np.float64).eps)
_FAR = 40.0  # deviations: what lies beyond weighs 1e-347, and no double is less than 5e-324

Bounds = tuple[float, float]

OPEN = 0.0, math.inf


def lone_bounds(event: Event, delta: float) -> Bounds:
    """lower ≤ ε ≤ upper of ONE release, where there is noise.

    >>> step = PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=1.0))
    >>> lower, upper = lone_bounds(step, 1e-5)
    >>> round(lower, 9), round(upper, 9)
    (0.199450448, 0.199450448)
    """
    if isinstance(event, PoissonSampled | FixedSizeSampled):
        size = event.group_size if isinstance(event, PoissonSampled) else 1
        if delta >= size * event.sampling_rate * (1 + (size > 1) * _EPS):
            return 0.0, 0.0  # as often as that no record of the person's was there
    return _bounds(event, math.log(delta), 0.0)


def _bounds(event: Event, log_delta: float, off: float) -> Bounds:
    """At a δ whose logarithm is known to within ``off``."""
    if isinstance(event, NoCost) or is_free(event) or log_delta - off >= 0:
        return 0.0, 0.0
    assert not chance_shown(event)
    match event:
        case Gaussian(noise_multiplier=noise):
            return gaussian_bounds(1 / noise, log_delta, off) if noise > 1e-300 else OPEN
        case Laplace(noise_multiplier=noise):
            return _laplace(noise, log_delta, off)
        case ExponentialMechanism(epsilon=epsilon):
            return _bounded_range(epsilon, log_delta, off)
        case DiscreteGaussian(noise_multiplier=noise):
            return _by_atoms(event, 1 + _FAR * noise, log_delta, off)
        case RandomizedResponse():
            return _by_atoms(event, 1.0, log_delta, off)
        case ShuffledEpoch(event=inner):
            return _bounds(inner, log_delta, off)
        case RandomAllocation() | TruncatedPoissonSampled():
            return OPEN  # by all of them together
        case PoissonSampled(event=Gaussian(noise_multiplier=noise)) if event.group_size > 1:
            return group_bounds(event.sampling_rate, noise, event.group_size, log_delta, off)
        case PoissonSampled(sampling_rate=q, event=inner):
            lower, upper = _amplified(q, inner, log_delta, off)
            if inner.relation is Relation.REPLACE_ONE and isinstance(inner, Gaussian) and q < 1:
                # attained where the replaced record's own vector is zero, half the way
                half = Gaussian(noise_multiplier=2 * inner.noise_multiplier)
                lower = _amplified(q, half, log_delta, off)[0]
            return lower, upper
        case FixedSizeSampled(sampling_rate=q, event=inner):
            return _amplified(q, inner, log_delta, off)


def _amplified(q: float, inner: Event, log_delta: float, off: float) -> Bounds:
    r"""Of a Poisson sample: δ(log(1 + q(exp(ε) − 1))) = q δ_inner(ε).

    That is (1 − q) Q + q P against Q [Balle, Barthe, Gaboardi 2018, Theorem 2]; the other way
    costs no more at any α = exp(ε) ≥ 1. There δ is (1 − α(1 − q)) ≤ q times that of Q against P
    at qα/(1 − α(1 − q)), which is no less than (α − 1 + q)/q, since by α − 1 = t

        q²α − (t + q)(1 − α(1 − q)) = t²(1 − q) ≥ 0.

    Where one record is replaced, ε ≥ 0 costs the same (``domination._either_way``).
    """
    off += 2 * _EPS * (1 + abs(log_delta) + abs(math.log(q)))
    lower, upper = _bounds(inner, log_delta - math.log(q), off)
    return mixed(q, lower) * (1 - 8 * _EPS), mixed(q, upper) * (1 + 8 * _EPS)


def _laplace(noise: float, log_delta: float, off: float) -> Bounds:
    """δ(ε) = 1 − exp((ε − 1/b)/2) [Balle, Barthe, Gaboardi 2018, Sec. 4], from 1/b down."""
    most = 1 / noise if noise > 1e-300 else math.inf
    if math.isinf(most):
        return OPEN
    saved = [-2 * math.log1p(-min(math.exp(log_delta + x), 1 - _EPS)) for x in (off, -off)]
    slack = 4 * _EPS * most
    return (
        max(most - slack - saved[0] * (1 + 8 * _EPS), 0.0),
        max(most + slack - saved[1] * (1 - 8 * _EPS), 0.0),
    )


def _bounded_range(epsilon: float, log_delta: float, off: float) -> Bounds:
    """δ(x) = (1 − exp((x − ε)/2))²/(1 − exp(−ε)), which two outcomes attain at each x
    [Dong, Durfee, Rogers 2020, Lemma 3.2]."""
    root = [math.sqrt(-math.expm1(-epsilon)) * math.exp((log_delta + x) / 2) for x in (off, -off)]
    saved = [-2 * math.log1p(-min(x, 1 - _EPS)) for x in root]
    slack = 4 * _EPS * epsilon
    return (
        max(epsilon - slack - saved[0] * (1 + 8 * _EPS), 0.0),
        max(epsilon + slack - saved[1] * (1 - 8 * _EPS), 0.0),
    )


def _by_atoms(
    event: DiscreteGaussian | RandomizedResponse, tilt: float, log_delta: float, off: float
) -> Bounds:
    """δ(ε) = Σ P_j (1 − exp(ε − L_j)) over the losses above ε: every term positive."""
    pair = domination(event).upper[0]
    assert isinstance(pair, Points)
    try:
        log_q, loss = pair.atoms(tilt)
    except OUT_OF_REACH:
        return OPEN
    keep = (loss > 0) & np.isfinite(loss)
    log_p, loss = (log_q + loss)[keep], loss[keep]
    if not loss.size:
        return OPEN
    order = np.argsort(loss)
    log_p, loss = log_p[order], loss[order]
    ulp = 16 * _EPS * (1 + np.abs(log_p) + loss)  # of log P and of the loss

    def log_delta_at(epsilon: float) -> tuple[float, float]:
        first = int(np.searchsorted(loss, epsilon * (1 + 8 * _EPS), side="right"))
        if first == loss.size:
            return -math.inf, 0.0
        peak = float(log_p[first:].max())
        mass = np.exp(log_p[first:] - peak)
        kept = -np.expm1(epsilon - loss[first:])
        total = float((mass * kept).sum())
        error = float((mass * (kept + 1) * ulp[first:]).sum()) + 1e-15 * total
        if not total > 2 * error:
            return -math.inf, math.inf
        return peak + math.log(total), 2 * error / total

    top = float(loss[-1]) * (1 + 16 * _EPS)
    return where_it_falls_to(log_delta, off, log_delta_at, (0.0, top))
