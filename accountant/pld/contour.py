r"""δ(ε) of a composition by a contour integral, between bounds that provably hold.

Let L be the sum of the privacy losses of all releases, independent under P, with transform
M(s) = E_P[exp(sL)], the product of those of the releases, and δ(ε) = E_P[(1 − exp(ε − L))₊].

**One more release.** Follow the run by a Gaussian release of noise multiplier 1/ς, whose loss N
is normal of mean ς²/2 and variance ς². More is released, so δ_ς(ε) ≥ δ(ε). And not much more:
(1 − exp(−t))₊ smoothed by N is the Black–Scholes value Φ(t/ς + ς/2) − exp(−t) Φ(t/ς − ς/2), whose
derivative by ς is φ(t/ς + ς/2); for v ≤ ς, φ(t/v + v/2) ≤ exp(ς²/8) φ(t/ς + ς/2); so

    δ_ς(ε) − ς² exp(ς²/8) p_ς(ε)  ≤  δ(ε)  ≤  δ_ς(ε),

p_ς the density of L + N under P. The gap is of second order in ς, and ς is ours to choose.

**Inversion.** With M_ς(s) = M(s) exp(ς² s(s + 1)/2) and any t > 0, along s = t + iu,

    δ_ς(ε) = 1/(2π) ∫ M_ς(s) exp(−sε) / (s (s + 1)) du,    p_ς(ε) = 1/(2π) ∫ M_ς(s) exp(−sε) du.

**Discretisation.** By Poisson's summation formula the sum over u = kΔ exceeds the integral by
exactly Σ_{m≠0} exp(tmW) δ_ς(ε + mW), W = 2π/Δ: never negative, so an upper bound stays one. For the
lower bound it is subtracted, as bounded by δ_ς(x) ≤ 1 on the left and by
δ_ς(x) ≤ M_ς(λ) exp(−λx)/(1 + λ), λ > t, on the right.

**Truncation.** |M(t + iu)|/M(t) is bounded for all |u| ≥ U (``accountant.pld.decay``), and the
Gaussian factor is exp(−ς²u²/2), so what lies beyond |u| = U is bounded in closed form and added.

**Floating point.** Each release's transform is known to within a relative κ (quadrature and
Fourier sum, ``pairs.GOAL`` and ``fourier.ERROR``); |φ + κ|^n − |φ|^n bounds what that does to the
n-fold power, rounding of the sums is counted in units of the last place, and both are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from accountant.dominating_pairs.pairs import GOAL, TooFine, log_moment
from accountant.pld.decay import decay_along
from accountant.pld.fourier import ERROR
from accountant.pld.sums import Saddle, Sum
from accountant.pld.transform import transform

_EPS = float(np.finfo(np.float64).eps)
_MOST_NODES = 1 << 20
_LEAST = 5e-324  # what is below it is above zero


@dataclass(frozen=True)
class Contour:
    """Where to integrate: along Re s = tilt, at nodes 2π/period apart, up to |Im s| = reach."""

    tilt: float
    period: float
    reach: float
    smoothing: float  # ς²
    beyond: float  # λ, for the aliases on the right
    log_moment_beyond: float  # log M_ς(λ), rounded up


def place(total: Sum, near: Saddle, smoothing: float, slack: float) -> Contour:
    """The contour of the fewest nodes whose aliases and tails are below slack × δ.

    Away from the saddle point the integrand is larger than δ, and its rounding with it; a tilt
    pays for that as for nodes.
    """
    tilts, moments = near.tilts, near.moments + smoothing * near.tilts * (near.tilts + 1) / 2
    log_small = near.log_delta + math.log(slack)
    variance = total.gaussian_variance + smoothing
    noise = ERROR * (1 + 0.01 * sum(count for _, count in total.parts))
    best = math.inf, 0, 0, 0.0
    for i, tilt in enumerate(tilts[:-2]):
        with np.errstate(invalid="ignore"):
            right = moments[i + 1 :] - tilts[i + 1 :] * near.epsilon - log_small
            right /= tilts[i + 1 :] - tilt
        if not np.isfinite(right).any():
            continue
        j = int(np.nanargmin(right))
        period = max(-log_small / tilt, float(right[j]))
        above = float(moments[i]) - tilt * near.epsilon - near.log_delta
        nodes = period * math.sqrt(2 * max(above - math.log(slack), 1.0) / variance)
        cost = nodes * (1 + math.exp(min(above, 200.0)) * noise / slack) ** 2
        if cost < best[0]:
            best = cost, i, i + 1 + j, period
    _, i, j, period = best
    if not period:
        raise TooFine
    decay = decay_along(total, float(tilts[i]), smoothing, 6 / period)
    log_peak = float(moments[i] - tilts[i] * near.epsilon)
    reach = decay.falls_to(log_small - 3 - log_peak, 6 / period)
    return Contour(
        tilt=float(tilts[i]),
        period=period,
        reach=reach,
        smoothing=smoothing,
        beyond=float(tilts[j]),
        log_moment_beyond=log_moment_above(total, float(tilts[j]), smoothing),
    )


def log_moment_above(total: Sum, tilt: float, smoothing: float) -> float:
    """An upper bound on log M_ς(tilt)."""
    nodes = [(pair.nodes(tilt, 0.0), n) for pair, n in total.parts]
    moments = [n * (log_moment(one, tilt) + 2 * (1 + tilt) * one.lost) for one, n in nodes]
    gaussian = (total.gaussian_variance + smoothing) * tilt * (tilt + 1) / 2
    return (gaussian + sum(moments)) * (1 + 1e-12) + 1e-6


class Inversion:
    """The transform along a contour, from which δ follows at any ε near where it was placed."""

    def __init__(self, total: Sum, contour: Contour) -> None:
        self.contour = contour
        t, step = contour.tilt, 2 * math.pi / contour.period
        count = math.ceil(contour.reach / step) + 1
        if count > _MOST_NODES:
            raise TooFine
        self.count = count
        self._u = u = np.multiply(step, np.arange(count), dtype=np.float64)
        variance = total.gaussian_variance + contour.smoothing
        self._log_moment = variance * t * (t + 1) / 2
        self._rounding = 8 * _EPS * abs(self._log_moment)
        self.shift = 0.0  # bounds on δ(ε) hold for an ε moved by no more than this
        log_phi = -variance * u**2 / 2 + 1j * (variance * (t + 0.5) * u)
        log_grown = log_phi.real.copy()
        for pair, n in total.parts:
            one = transform(pair, t, contour.period, u)
            log_phi += n * one.log_phi
            log_grown += n * np.logaddexp(one.log_phi.real, np.log(one.kappa))
            self._log_moment += n * one.log_moment
            self._rounding += n * (2e-13 * abs(one.log_moment) + GOAL + 2 * (1 + t) * one.lost)
            self.shift += n * one.shift
        size = np.exp(log_phi.real)
        weights = np.full(count, step / math.pi)
        weights[0] /= 2
        denominator = (t + 1j * u) * (t + 1 + 1j * u)
        self._density = weights * size * np.exp(1j * np.where(size > 0, log_phi.imag, 0.0))
        self._delta = self._density / denominator
        phases = 4 * _EPS * (1 + np.abs(log_phi.imag) + np.abs(log_phi.real))
        growth = np.expm1(np.minimum(log_grown - log_phi.real, 700.0))
        mild = (size > 0) & (log_grown - log_phi.real < 700)
        error = weights * np.where(mild, size * (growth + phases), np.exp(log_grown))
        decay = decay_along(total, t, contour.smoothing, 6 / contour.period)
        tail = math.exp(max(decay.log_tail(float(u[-1])), -745.0))
        self._error_delta = float((error / np.abs(denominator)).sum())
        self._error_delta += tail / math.pi / float(np.abs(denominator[-1]))
        self._error_density = float(error.sum()) + tail / math.pi

    def delta(self, epsilon: float) -> tuple[float, float]:
        """A lower bound on δ(ε − shift) and an upper bound on δ(ε + shift)."""
        low, high = self.log_delta(epsilon)
        return math.exp(low), min(math.exp(high) * (1 + 4 * _EPS) + _LEAST, 1.0)

    def log_delta(self, epsilon: float) -> tuple[float, float]:
        """Their logarithms, which do not underflow."""
        c = self.contour
        exponent = self._log_moment - c.tilt * epsilon
        wave = np.exp(-1j * (self._u * epsilon))
        shaky = 4 * _EPS * (self._u * abs(epsilon) + 8)
        error = self._error_delta + float(shaky @ np.abs(self._delta))
        error_density = self._error_density + float(shaky @ np.abs(self._density))
        delta = float((self._delta * wave).real.sum())
        density = float((self._density * wave).real.sum())
        gap = c.smoothing * math.exp(c.smoothing / 8) * (density + error_density)
        relative = self._rounding + 8 * _EPS * (abs(exponent) + c.tilt * abs(epsilon) + 1)
        low, high = delta - error - gap, delta + error
        log_low = exponent + math.log(low) - relative if low > 0 else -math.inf
        log_high = exponent + math.log(high) + relative if high > 0 else 0.0
        log_low = log_less(log_low, self._log_aliases(epsilon)) if low > 0 else -math.inf
        if not (math.isfinite(exponent) and log_low <= log_high):
            return -math.inf, 0.0  # rounding left nothing
        return min(log_low, 0.0), min(log_high, 0.0)

    def _log_aliases(self, epsilon: float) -> float:
        c = self.contour
        left, right = c.tilt * c.period, (c.beyond - c.tilt) * c.period
        level = c.log_moment_beyond - c.beyond * epsilon - math.log1p(c.beyond)
        beyond = level - right - math.log(-math.expm1(-right))
        return float(np.logaddexp(-left - math.log(-math.expm1(-left)), beyond))


def log_less(log_a: float, log_b: float) -> float:
    """log(a − b), or −∞ where nothing is left."""
    if log_b >= log_a:
        return -math.inf
    return log_a + math.log(-math.expm1(log_b - log_a)) - 4 * _EPS * (1 + abs(log_a))
