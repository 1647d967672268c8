r"""Dominating pairs: the two distributions an event's worst neighbours lie between, as points.

A pair (P, Q) dominates an event when no neighbouring data sets give outputs with a larger
hockey-stick divergence at any ε; dominating pairs compose by multiplication, adaptively too
[Zhu, Dong, Wang 2022, Theorem 10]. Everything about a composition follows from the transforms
E_P[exp(s L)] of the privacy losses L = log(P/Q), so a pair is handed on as weighted points at
which such integrals are sums, with a bound on what the sum misses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[Any]  # real outcomes, or complex ones where a bound looks off the line
Curve = Callable[[Complex], tuple[Complex, Complex]]
"""Outcome → (log density under Q, privacy loss); analytic, so it takes complex outcomes too."""

GOAL = 1e-17
"""What a quadrature may miss of E_P[exp(sL)], relative to E_P[exp(tL)], t = Re s."""

REACH = 9.5  # standard deviations: a Gaussian density beyond it is below 1e-20 of its peak
_NEGLIGIBLE = 50.0  # e-folds below the largest weight
_MARGIN = 1.0  # e-folds added where a bound is read off a lattice
_MOST_COARSE, MOST_POINTS = 150_000, 1 << 20
_SHRINK = 0.7 ** np.arange(28.0)


_SHORT, _SERIES = 0.5, 14  # terms of a series in powers of at most 1/2: the next weighs 1e-18
_FACTORIALS = np.cumprod(np.arange(1.0, _SERIES + 2))[1:]


def log_sum(terms: Array) -> Array:
    """log Σ exp over the first axis, in a fraction of the time scipy's takes on short arrays."""
    peak = terms.max(axis=0)
    return np.asarray(peak + np.log(np.exp(terms - peak).sum(axis=0)))


class TooFine(Exception):
    """An integral would take more points than memory and patience allow."""


@dataclass(frozen=True)
class Nodes:
    """Weighted points of a pair: E_P[g(L)] = Σ_j exp(log_q_j + loss_j) g(loss_j)."""

    log_q: Array
    loss: Array


class Pair(Protocol):
    """Two distributions, as far as a contour Re s = tilt needs them."""

    def coarse(self, tilt: float) -> Nodes:
        """Enough points to place a contour; nothing certified rests on them."""

    def nodes(self, tilt: float, reach: float) -> Nodes:
        """Points good to GOAL for every s with Re s = tilt and |Im s| ≤ reach; its square if 0."""

    def log_decay(self, tilt: float) -> float:
        """log V, where |E_P[exp(sL)]| ≤ V/|Im s| · E_P[exp(tilt·L)] for all s; ∞ if unknown."""

    def most_loss(self) -> tuple[float, float]:
        """The least upper bound of L, ∞ if there is none, and log P(L is that)."""


@dataclass(frozen=True)
class Mixture:
    r"""Gaussian noise on a sum that holds j of a person's records with probability b_j.

    In units of the noise Q = N(0, 1) and P = Σ_j b_j N(jμ, 1), or the two exchanged. Poisson
    sampling of one record is b = (1 − q, q) [Zhu, Dong, Wang 2022, Theorem 11]; of the k records
    of a group b is binomial, the worst case being that all point the same way.

    The outcome z runs over the line and integrands are analytic in |Im z| < π/(2kμ), so the
    trapezoidal rule of step h misses at most 2 N/(exp(2πa/h) − 1), where N is the integral of
    the integrand's modulus along Im z = ±a [Trefethen, Weideman 2014, Theorem 5.1]; a and h are
    chosen so that this is below GOAL.
    """

    log_weights: tuple[float, ...]
    spacing: float
    exchanged: bool = False

    @property
    def most(self) -> int:
        """k, the most records."""
        return len(self.log_weights) - 1

    @property
    def _strip(self) -> float:
        return min(1.4 / (self.spacing * self.most), 3.0)

    def _log_terms(self, z: Complex) -> Complex:
        """log b_j dN(jμ, 1)/dN(0, 1) at z, of shape (k + 1, z.size)."""
        j = np.arange(self.most + 1)
        middle = j**2 * self.spacing / 2 - np.array(self.log_weights) / self.spacing
        return self.spacing * (np.multiply.outer(j, z) - middle[:, None])

    def curve(self, z: Complex) -> tuple[Complex, Complex]:
        """log density under Q, and privacy loss, at each outcome."""
        if self.most == 1:  # the common case, without the axis
            exponent = self.spacing * (z - self.spacing / 2)
            loss = log_mixture(exponent, *(math.exp(w) for w in self.log_weights))
        else:
            terms = self._log_terms(z)
            shift = np.maximum(terms.real.max(axis=0), 0.0)
            j = np.arange(1, self.most + 1)[:, None]
            exponents = self.spacing * (j * z - j**2 * self.spacing / 2)
            change = np.exp(self.log_weights[1:]) @ np.expm1(np.where(shift > 0, 0, exponents))
            apart = np.exp(terms - terms.real.max(axis=0)).sum(axis=0)
            loss = _log1p_or(change, terms.real.max(axis=0) + np.log(apart), shift > 0)
        log_q = -z * z / 2 - 0.5 * math.log(2 * math.pi)
        return (log_q + loss, -loss) if self.exchanged else (log_q, loss)

    def _log_slope(self, z: Array) -> Array:
        """log |dL/dz|, where dL/dz is μ times the expected number of records, given z."""
        terms = self._log_terms(z)
        held = terms[1:] + np.log(np.arange(1, self.most + 1))[:, None]
        log_held = log_sum(held) - log_sum(terms)
        return np.asarray(math.log(self.spacing) + log_held)

    def _ends(self, tilt: float) -> tuple[float, float]:
        """Outside, the tilted density falls at least as fast as a Gaussian from REACH on."""
        width = self.spacing * self.most
        far = REACH + 2 * width  # the square of a small loss is largest around 2kμ
        if not self.exchanged:
            return -REACH, REACH + max(1 + tilt, 2.0) * width
        low = -REACH
        for _ in range(20):  # −z > REACH + tilt·slope(z) from there on to the left
            further = -REACH - tilt * math.exp(float(self._log_slope(np.array([low]))[0]))
            if further > low - 0.1:
                break
            low = further
        return min(low, further) - 0.5, far

    def _lattice(self, tilt: float, step: float) -> tuple[Array, Array, Array, Array]:
        """Multiples of step with log Q, loss and log weight there."""
        low, high = self._ends(tilt)
        if high - low > MOST_POINTS * step:
            raise TooFine
        z = step * np.arange(math.floor(low / step), math.ceil(high / step) + 1)
        log_q, loss = self.curve(z)
        weight = log_q + (1 + tilt) * loss
        core = REACH + 2 * self.spacing * self.most
        keep = (z < core) | (weight > weight.max() - _NEGLIGIBLE)
        return z[keep], log_q[keep], loss[keep], weight[keep]

    def coarse(self, tilt: float) -> Nodes:
        step = min(0.25, self._strip / 4)
        if self._ends(tilt)[1] > _MOST_COARSE * step:
            raise TooFine
        _, log_q, loss, _ = self._lattice(tilt, step)
        return Nodes(log_q + math.log(step), loss)

    def nodes(self, tilt: float, reach: float) -> Nodes:
        coarse = min(0.25, self._strip / 4)
        z, _, _, weight = self._lattice(tilt, coarse)
        z = z[weight > weight.max() - 2 * _NEGLIGIBLE]
        total = float(log_sum(weight))
        goal = GOAL if reach else GOAL**2
        best = 0.0
        for shrink in _SHRINK:
            a = self._strip * shrink
            log_q, loss = self.curve(z + 1j * a)
            modulus = (log_q + (1 + tilt) * loss).real + reach * np.abs(loss.imag)
            growth = max(float(log_sum(modulus)) - total, 0.0) + _MARGIN
            step = 2 * math.pi * a / (growth + math.log(2 / goal))
            if step < best / 2:
                break
            best = max(best, step)
        _, log_q, loss, _ = self._lattice(tilt, min(best, 0.5))
        return Nodes(log_q + math.log(min(best, 0.5)), loss)

    def log_decay(self, tilt: float) -> float:
        """Integration by parts: V is the total variation of the tilted density over |dL/dz|.

        It is summed over a lattice so fine that what a cell hides at a turning point is below a
        twentieth of the value there, and raised by a quarter.
        """
        bend = 1 + (2 + tilt) * ((self.spacing * self.most) ** 2) / 4
        step = min(0.1, math.sqrt(0.4 / bend / (self.most + 1)))
        low, high = self._ends(tilt)
        if high - low > MOST_POINTS * step:
            return math.inf
        z = np.arange(low - self.spacing * self.most, high + step, step)
        log_q, loss = self.curve(z)
        weight = log_q + (1 + tilt) * loss
        ratio = weight - log_sum(weight) - math.log(step) - self._log_slope(z)
        peak = float(ratio.max())
        return peak + math.log(1.25 * np.abs(np.diff(np.exp(ratio - peak))).sum())

    def most_loss(self) -> tuple[float, float]:
        """Without a record the loss stays below −log b_0, which it comes near but never reaches."""
        return (-self.log_weights[0] if self.exchanged else math.inf), -math.inf


def log_mixture(exponent: Complex, rest: float, q: float) -> Complex:
    """log(rest + q e^x), exact for small x, finite for large, in the strip |Im x| < π/2."""
    shift = np.maximum(exponent.real, 0.0)
    apart = shift + np.log(rest * np.exp(-shift) + q * np.exp(exponent - shift))
    change = q * np.expm1(np.where(shift < 600, exponent, 0))
    return _log1p_or(change, apart, shift >= 600)


def _log1p_or(change: Complex, apart: Complex, far: NDArray[np.bool_]) -> Complex:
    """log(1 + change) where the change is small, else what was found apart."""
    small = ~far & (np.abs(change) < 0.5)
    return np.where(small, np.log1p(np.where(small, change, 0)), apart)


@dataclass(frozen=True)
class Points:
    """A pair on countably many outcomes: atoms(tilt) → log Q and loss of those that matter."""

    atoms: Callable[[float], tuple[Array, Array]]
    bounded: bool = True

    def coarse(self, tilt: float) -> Nodes:
        return Nodes(*self.atoms(tilt))

    def most_loss(self) -> tuple[float, float]:
        return _most(*self.atoms(1.0)) if self.bounded else (math.inf, -math.inf)

    def nodes(self, tilt: float, reach: float) -> Nodes:
        return self.coarse(tilt)

    def log_decay(self, tilt: float) -> float:
        return math.inf


_DEGREE, _ELLIPSE = 32, 4.0  # nodes per panel; sum of the half-axes of the ellipse of the bound


@dataclass(frozen=True)
class Panels:
    """A pair with densities on an interval and atoms besides.

    Each panel takes Gauss–Legendre nodes, which miss at most (64/15) M ρ^(−2n)/(1 − ρ^(−2)) of
    an integrand bounded by M in the ellipse of foci ±1 and half-axes' sum ρ [Trefethen 2008,
    Theorem 4.5]; panels are halved until that is below GOAL.
    """

    curves: tuple[Curve, ...]
    ends: Callable[[float], tuple[float, float]]
    atoms: tuple[Array, Array]
    bounded: bool = True
    widest: float = 0.5

    def coarse(self, tilt: float) -> Nodes:
        return self._nodes(*self.ends(tilt), 16)

    def most_loss(self) -> tuple[float, float]:
        """Of the atoms, where they reach as far as the densities do."""
        if not self.bounded:
            return math.inf, -math.inf
        ends = np.array(self.ends(1.0))
        reached = max((float(curve(ends)[1].max()) for curve in self.curves), default=-math.inf)
        loss, log_p = _most(*self.atoms) if self.atoms[0].size else (-math.inf, -math.inf)
        return (loss, log_p) if loss >= reached else (reached, -math.inf)

    def nodes(self, tilt: float, reach: float) -> Nodes:
        low, high = self.ends(tilt)
        angle = np.exp(2j * math.pi * np.arange(16) / 16)
        ellipse = (_ELLIPSE * angle + 1 / (_ELLIPSE * angle)) / 2
        total = _log_transform(self.coarse(tilt), tilt)
        panels = 8
        while panels < 1 << 20:
            half = (high - low) / panels / 2
            centre = low + half * (2 * np.arange(panels) + 1)
            z = (centre[:, None] + half * ellipse).ravel()
            bound = -math.inf
            if half < self.widest:  # keeps the ellipse where the curves are analytic
                for curve in self.curves:
                    log_q, loss = curve(z)
                    modulus = (log_q + (1 + tilt) * loss).real + reach * np.abs(loss.imag)
                    bound = np.logaddexp(bound, modulus.max())
                missed = math.log(5 * panels * half) + bound - 2 * _DEGREE * math.log(_ELLIPSE)
                if missed + _MARGIN < total + math.log(GOAL if reach else GOAL**2):
                    break
            panels *= 2
        return self._nodes(low, high, panels)

    def _nodes(self, low: float, high: float, panels: int) -> Nodes:
        x, w = np.polynomial.legendre.leggauss(_DEGREE)
        half = (high - low) / panels / 2
        z = (low + half * (2 * np.arange(panels) + 1)[:, None] + half * x).ravel()
        log_w = np.log(np.tile(w * half, panels))
        parts = [curve(z) for curve in self.curves]
        log_q = np.concatenate([self.atoms[0], *(part[0] + log_w for part in parts)])
        return Nodes(log_q, np.concatenate([self.atoms[1], *(part[1] for part in parts)]))

    def log_decay(self, tilt: float) -> float:
        return math.inf


def _most(log_q: Array, loss: Array) -> tuple[float, float]:
    most = float(loss.max())
    return most, float(log_sum((log_q + loss)[loss == most]))


def _log_transform(nodes: Nodes, tilt: float) -> float:
    return float(log_sum(nodes.log_q + (1 + tilt) * nodes.loss))


def log_moment(nodes: Nodes, tilt: float) -> float:
    """log E_P[exp(tilt·L)], to a relative 1e-13 however near to zero it is.

    Q and P both have total one, so E_Q[exp((1+t)L)] − 1 = E_Q[exp((1+t)L) − 1 − (1+t)(exp(L) − 1)],
    whose integrand is never negative.
    """
    if tilt * nodes.loss.max() < 600:
        moment = float(_excess(nodes, tilt).sum())
        if moment < 1:
            return math.log1p(max(moment, 0.0))
    return float(log_sum(nodes.log_q + (1 + tilt) * nodes.loss))


def _excess(nodes: Nodes, tilt: float) -> Array:
    """Q times exp((1+t)x) − 1 − (1+t)(exp(x) − 1), by its series where that would cancel."""
    loss, q, p = nodes.loss, np.exp(nodes.log_q), np.exp(nodes.log_q + nodes.loss)
    excess = p * np.expm1(tilt * loss) - tilt * (p - q)
    power = (1 + tilt) * loss
    near = np.abs(power) < _SHORT
    k = np.arange(2, _SERIES + 2)
    coefficients = -np.expm1((1 - k) * math.log1p(tilt)) / _FACTORIALS
    y = power[near]
    series = np.zeros(y.size)
    for coefficient in coefficients[::-1]:
        series = series * y + coefficient
    excess[near] = q[near] * series * y * y
    return np.asarray(excess)


def cumulants(nodes: Nodes, tilt: float) -> tuple[float, float, float]:
    """log E_P[exp(tilt·L)], and mean and variance of L under the tilted P; not certified."""
    weight = nodes.log_q + (1 + tilt) * nodes.loss
    peak = float(weight.max())
    weight = np.exp(weight - peak)
    total = float(weight.sum())
    mean = float(weight @ nodes.loss) / total
    return peak + math.log(total), mean, float(weight @ (nodes.loss - mean) ** 2) / total
