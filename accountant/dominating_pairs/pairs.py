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
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[Any]  # real outcomes, or complex ones where a bound looks off the line
Curve = Callable[[Complex], tuple[Complex, Complex]]
"""Outcome → (log density under Q, privacy loss); analytic, so it takes complex outcomes too."""

GOAL = 1e-17
"""What a quadrature may miss of E_P[exp(sL)], relative to E_P[exp(tL)], t = Re s."""

MARGIN = 1.0  # e-folds added where a bound is read off a lattice
MOST_POINTS = 1 << 20


_SHORT, _SERIES = 0.5, 14  # terms of a series in powers of at most 1/2: the next weighs 1e-18
_FACTORIALS = np.cumprod(np.arange(1.0, _SERIES + 2))[1:]


def log_sum(terms: Array) -> Array:
    """log Σ exp over the first axis, in a fraction of the time scipy's takes on short arrays."""
    peak = terms.max(axis=0)
    return np.asarray(peak + np.log(np.exp(terms - peak).sum(axis=0)))


class TooFine(Exception):
    """An integral would take more points than memory and patience allow."""


OUT_OF_REACH = (TooFine, ArithmeticError, ValueError)
"""What is raised where doubles end, or patience: the answer is what was known before."""


@dataclass(frozen=True)
class Nodes:
    """Weighted points of a pair: E_P[g(L)] = Σ_j exp(log_q_j + loss_j) g(loss_j).

    ``lost``: a bound on the mass left out on purpose, under P where L > 0, under Q where L < 0.
    """

    log_q: Array
    loss: Array
    lost: float = 0.0


@dataclass(frozen=True)
class Cells:
    """Mass that a tilted distribution surely has, and the losses it lies between, rising."""

    mass: Array  # each cell's, of a whole of one
    low: Array
    high: Array


@dataclass(frozen=True)
class Variation:
    """Masses m and log V of parts of a tilted distribution, where |∫ exp(iuL)| ≤ V/|u| over each.

    The first part is the whole, of mass one; V is ∞ where no bound is known.
    """

    mass: Array
    log_v: Array


UNBOUNDED = Variation(np.ones(1), np.full(1, math.inf))
NO_CELLS = Cells(np.empty(0), np.empty(0), np.empty(0))


class Pair(Protocol):
    """Two distributions, as far as a contour Re s = tilt needs them."""

    def without_tail(self, log_mass: float) -> Pair:
        """The pair less outcomes of large loss, of a P-mass of at most exp(log_mass)."""

    def coarse(self, tilt: float) -> Nodes:
        """Enough points to place a contour; nothing certified rests on them."""

    def nodes(self, tilt: float, reach: float) -> Nodes:
        """Points good to GOAL for every s with Re s = tilt and |Im s| ≤ reach; its square if 0."""

    def variation(self, tilt: float) -> Variation:
        """What integration by parts gives on the whole of the outcomes, and on parts of them."""

    def cells(self, tilt: float) -> Cells:
        """A lower bound on P tilted by exp(tilt·L) and normalised; the more, the tighter."""

    def most_loss(self) -> tuple[float, float]:
        """The least upper bound of L, ∞ if there is none, and log P(L is that)."""


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

    def cells(self, tilt: float) -> Cells:
        nodes = self.coarse(tilt)
        order = np.argsort(nodes.loss)
        weight = (nodes.log_q + (1 + tilt) * nodes.loss)[order]
        mass = np.exp(weight - log_sum(weight)) * (1 - 1e-9)
        return Cells(mass, nodes.loss[order], nodes.loss[order])

    def variation(self, tilt: float) -> Variation:
        return UNBOUNDED

    def without_tail(self, log_mass: float) -> Pair:
        return self


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
    log_beyond: Callable[[float], float] | None = None  # z → log P(outcome > z)
    lost: float = 0.0

    def without_tail(self, log_mass: float) -> Panels:
        if self.log_beyond is None:
            return self
        ends, last = self.ends, where_tail_falls_to(self.log_beyond, log_mass)
        return replace(
            self,
            ends=lambda tilt: (ends(tilt)[0], last),
            bounded=True,
            log_beyond=None,
            lost=math.exp(log_mass),
        )

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
        while panels * _DEGREE <= MOST_POINTS:
            half = (high - low) / panels / 2
            centre = low + half * (2 * np.arange(panels) + 1)
            z = (centre[:, None] + half * ellipse).ravel()
            bound = -math.inf
            if half < self.widest:  # keeps the ellipse where the curves are analytic
                for curve in self.curves:
                    log_q, loss = curve(z)
                    modulus = (log_q + (1 + tilt) * loss).real + reach * np.abs(loss.imag)
                    most = log_sum(modulus.reshape(panels, -1).max(axis=1))
                    bound = float(np.logaddexp(bound, most))
                missed = math.log(5 * half) + bound - 2 * _DEGREE * math.log(_ELLIPSE)
                if missed + MARGIN < total + math.log(GOAL if reach else GOAL**2):
                    return self._nodes(low, high, panels)
            panels *= 2
        raise TooFine

    def _nodes(self, low: float, high: float, panels: int) -> Nodes:
        x, w = np.polynomial.legendre.leggauss(_DEGREE)
        half = (high - low) / panels / 2
        z = (low + half * (2 * np.arange(panels) + 1)[:, None] + half * x).ravel()
        log_w = np.log(np.tile(w * half, panels))
        parts = [curve(z) for curve in self.curves]
        log_q = np.concatenate([self.atoms[0], *(part[0] + log_w for part in parts)])
        loss = np.concatenate([self.atoms[1], *(part[1] for part in parts)])
        return Nodes(log_q, loss, self.lost)

    def cells(self, tilt: float) -> Cells:
        return NO_CELLS

    def variation(self, tilt: float) -> Variation:
        return UNBOUNDED


def where_tail_falls_to(log_beyond: Callable[[float], float], log_mass: float) -> float:
    """An outcome beyond which the mass is at most that."""
    low, high = 0.0, 1.0
    while log_beyond(high) > log_mass:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if log_beyond(middle) > log_mass else (low, middle)
    return high


def _most(log_q: Array, loss: Array) -> tuple[float, float]:
    most = float(loss.max())
    return most, float(log_sum((log_q + loss)[loss == most]))


def _log_transform(nodes: Nodes, tilt: float) -> float:
    return float(log_sum(nodes.log_q + (1 + tilt) * nodes.loss))


def log_moment(nodes: Nodes, tilt: float) -> float:
    """log E_P[exp(tilt·L)], to a relative 1e-13 however near to zero it is.

    Q and P both have total one, so E_Q[exp((1+t)L)] − 1 = E_Q[exp((1+t)L) − 1 − (1+t)(exp(L) − 1)],
    whose integrand is never negative. What was left out on purpose changes it by at most
    2 (1 + t) ``nodes.lost``.
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
