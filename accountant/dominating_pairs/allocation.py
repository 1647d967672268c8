r"""The pair of random allocation: one of t Gaussian releases holds the record, not told which.

In units of the noise, μ = 1/σ, Q = N(0, I_t) and P = (1/t) Σ_i N(μ e_i, I_t), or the two
exchanged [Chua et al. 2025, "Balls-and-Bins Sampling for DP-SGD"; Feldman, Shenfeld
2025, "Privacy amplification by random allocation"]. What is lost is told by one number,
the likelihood ratio

    S = (1/t) Σ_i Y_i,    Y_i = exp(μ z_i − μ²/2),    z_i ~ N(0, 1) under Q,

since δ(ε) = E_Q[(S − exp(ε))₊] where the record is removed and E_Q[(1 − exp(ε) S)₊] where it is
added. Both integrands are convex in S. So where a law of Y is **spread**, each cell's mass moved
to the cell's ends with its mean kept, both grow; where it is **gathered**, each cell's mass moved
to its mean, both fall (Jensen); and so it is for every sum and product of independent such
variables. Sums of 2, 4, … terms, and then products of whole allocations, are taken so, on a few
thousand points each: every number added is positive, so nothing cancels, however small δ is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from accountant.dominating_pairs.pairs import Array, TooFine

POINTS = 1200
REACH = 10.4  # deviations: a Gaussian weighs 1e-25 beyond
_TAIL = 1e-24
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)  # good to 1e-20 on a cell of 1/50
_ROWS = 128
_ROUNDING = 1e-12  # of a cell's mass, from the quadrature and the sums
_MOST_LOG = 300.0  # of a likelihood ratio: beyond, doubles end


@dataclass(frozen=True)
class Law:
    """A likelihood ratio's law under Q: its positive values, rising, and their masses.

    ``lost_p`` and ``lost_q`` bound the mass of the outcomes left out, under P and under Q; what is
    kept is within a factor of exp(±off) of what it should be, either mass.
    """

    ratio: Array
    mass: Array
    lost_p: float = 0.0
    lost_q: float = 0.0
    off: float = 0.0

    def delta(self, epsilon: float) -> float:
        """The larger of E_Q[(S − exp(ε))₊] and E_Q[(1 − exp(ε) S)₊], without what was left out."""
        return max(self.deltas(epsilon))

    def deltas(self, epsilon: float) -> tuple[float, float]:
        """The same where the record is removed, and where it is added."""
        over = np.maximum(self.ratio - math.exp(min(epsilon, 700.0)), 0.0)
        under = -np.expm1(np.minimum(np.log(self.ratio) + epsilon, 0.0))
        return float(self.mass @ over), float(self.mass @ under)

    @property
    def lost(self) -> float:
        return max(self.lost_p, self.lost_q)


@lru_cache(maxsize=64)
def allocation_laws(steps: int, noise_multiplier: float, count: int) -> tuple[Law, Law]:
    """What costs no less than ``count`` allocations over so many steps each, and what no more.

    Raises:
        TooFine: doubles, or the points, end there.

    >>> above, below = allocation_laws(10, 2.0, 1)
    >>> 0.99 < below.delta(0.1) / above.delta(0.1) < 1
    True
    """
    if count == 1:
        mu = 1 / noise_multiplier
        if not mu * (REACH + mu) + math.log(steps) < _MOST_LOG:
            raise TooFine
        return _one(steps, mu, spread=True), _one(steps, mu, spread=False)
    above, below = allocation_laws(steps, noise_multiplier, 1)  # which Rényi's bound asks for, too
    return (
        _power(above, count, lambda a, b: _product(a, b, spread=True)),
        _power(below, count, lambda a, b: _product(a, b, spread=False)),
    )


def _one(steps: int, mu: float, *, spread: bool) -> Law:
    lost = [0.0, 0.0]

    def summed(one: _Part, other: _Part) -> _Part:
        return _combined(one, other, steps, lost, spread=spread)

    whole = _power(_lognormal(mu, spread=spread), steps, summed)
    keep = whole.value > 0
    lost[1] += float(whole.mass[~keep].sum())
    # beyond the reach of the first grid: under Q any of t, under P one that is shifted besides
    tail = math.erfc(REACH / math.sqrt(2))
    lost[0], lost[1] = lost[0] + (steps + 1) * tail, lost[1] + steps * tail
    off = _ROUNDING * (steps + 8)
    return Law(whole.value[keep] / steps, whole.mass[keep], lost[0], lost[1], off)


_T = TypeVar("_T")


def _power(one: _T, n: int, combined: Callable[[_T, _T], _T]) -> _T:
    """n of a kind combined, by doubling."""
    found: _T | None = None
    while True:
        if n % 2:
            found = one if found is None else combined(found, one)
        n //= 2
        if not n:
            assert found is not None
            return found
        one = combined(one, one)


@dataclass(frozen=True)
class _Part:
    """The law of a sum of ``terms`` of the Y_i: values from 0 on, rising, and masses."""

    value: Array
    mass: Array
    terms: int


def _lognormal(mu: float, *, spread: bool) -> _Part:
    """Y, by quadrature over cells of z; what lies below the first is moved to 0, or to the first.

    Under P, which is Q with Y for its density, z is shifted by μ.
    """
    z = np.linspace(-REACH, REACH + mu, POINTS)
    half = (z[1] - z[0]) / 2
    inside = half * (1 + _NODES)  # from a cell's left end
    at = z[:-1, None] + inside
    density = np.exp(-at * at / 2) * _WEIGHTS * (half / math.sqrt(2 * math.pi))
    ends = np.exp(mu * z - mu * mu / 2)
    if not spread:
        mass = density.sum(axis=1)
        mean = ends[:-1] * (density * np.exp(mu * inside)).sum(axis=1) / mass
        return _Part(mean, mass, 1)
    up = np.expm1(mu * inside) / math.expm1(2 * half * mu)
    down = np.expm1(mu * (inside - 2 * half)) / math.expm1(-2 * half * mu)
    mass = np.zeros(POINTS)
    mass[1:] += density @ up
    mass[:-1] += density @ down
    return _Part(ends, mass, 1)


def _combined(one: _Part, other: _Part, steps: int, lost: list[float], *, spread: bool) -> _Part:
    """The law of the sum of two independent sums.

    Of ``steps`` terms in all there are at most steps/k such sums of k. Where one is left out, for
    it is U > c, Q loses P(U > c), and P, of which S is the density, E[U; U > c]/steps and the
    others' share of the mean.
    """
    terms = one.terms + other.terms
    low, high = _least(one) + _least(other), float(one.value[-1] + other.value[-1])
    grid, step = _grid(low, high)
    heap = _Heap(grid, low, step)
    for rows, others, mass in _blocks(one.mass, other.mass):
        heap.add(np.add.outer(one.value[rows], other.value[others]), mass, spread=spread)
    value, mass = heap.law(spread=spread)
    share = steps / terms
    lost[1] += share * heap.low  # as if left out: what is spread to 0 has no moment below 0
    beyond_q = np.cumsum(mass[::-1])[::-1]
    beyond_p = (np.cumsum((mass * value)[::-1])[::-1] + (steps - terms) * beyond_q) / steps
    kept = max(int(np.count_nonzero(share * beyond_p > _TAIL)), 2)
    if kept < value.size:
        lost[0] += share * float(beyond_p[kept]) * (1 + 1e-9)
        lost[1] += share * float(beyond_q[kept]) * (1 + 1e-9)
    return _Part(value[:kept], mass[:kept], terms)


def _product(one: Law, other: Law, *, spread: bool) -> Law:
    """The law of the product of two independent ratios, whose means are 1."""
    low = float(one.ratio[0] * other.ratio[0]) * (1 - 1e-14)
    high = float(one.ratio[-1] * other.ratio[-1]) * (1 + 1e-14)
    if not 1 / math.exp(_MOST_LOG) < low < high < math.exp(_MOST_LOG):
        raise TooFine
    grid, step = _grid(low, high)
    heap = _Heap(grid, low, step)
    for rows, others, mass in _blocks(one.mass, other.mass):
        heap.add(np.multiply.outer(one.ratio[rows], other.ratio[others]), mass, spread=spread)
    value, mass = heap.law(spread=spread)
    lost_p, lost_q = one.lost_p + other.lost_p, one.lost_q + other.lost_q
    over_p = np.cumsum((mass * value)[::-1])[::-1]
    over_q = np.cumsum(mass[::-1])[::-1]
    stop = max(int(np.count_nonzero(over_p > _TAIL)), 2)
    if stop < value.size:
        lost_p, lost_q = lost_p + float(over_p[stop]), lost_q + float(over_q[stop])
    under_q = np.cumsum(mass)
    start = min(int(np.count_nonzero(under_q <= _TAIL)), stop - 2)
    if start:
        lost_p += float((mass * value)[:start].sum())
        lost_q += float(under_q[start - 1])
    kept = slice(start, stop)
    lost_p, lost_q = lost_p * (1 + 1e-9), lost_q * (1 + 1e-9)
    return Law(value[kept], mass[kept], lost_p, lost_q, one.off + other.off)


def _blocks(one: Array, other: Array) -> Iterator[tuple[slice, slice, Array]]:
    """Rows, columns and joint masses, a few rows at a time; of a square, half the pairs twice."""
    for start in range(0, one.size, _ROWS):
        rows = slice(start, start + _ROWS)
        if one is not other:
            yield rows, slice(None), np.outer(one[rows], other)
            continue
        twice = np.where(np.arange(start, one.size) < start + _ROWS, 1.0, 2.0)
        yield rows, slice(start, None), np.outer(one[rows], one[start:] * twice)


def _least(part: _Part) -> float:
    """The smallest value that is not all but never reached."""
    reached = (np.cumsum(part.mass) > _TAIL) & (part.value > 0)
    return float(part.value[int(np.argmax(reached))])


def _grid(low: float, high: float) -> tuple[Array, float]:
    """0, and points from low to high, each the same factor above the last; the log of that."""
    step = math.log(high / low) / (POINTS - 2) * (1 + 1e-12)
    return np.append(0.0, low * np.exp(step * np.arange(POINTS - 1))), step


class _Heap:
    """Masses that are put down on a grid, or gathered between its points."""

    def __init__(self, grid: Array, low: float, step: float) -> None:
        self._grid, self._low, self._step = grid, low, step
        self._mass, self._first = np.zeros(grid.size), np.zeros(grid.size)
        self.low = 0.0  # mass below the least point that is not 0

    def add(self, value: Array, mass: Array, *, spread: bool) -> None:
        value, mass = value.ravel(), mass.ravel()
        with np.errstate(divide="ignore"):
            cell = np.log(value / self._low) / self._step
        place = np.clip(np.floor(cell) + 1, 0, self._grid.size - 2).astype(np.intp)
        self.low += float(mass[place == 0].sum())
        left = self._grid[place]
        if not spread:
            self._mass += np.bincount(place, mass, self._grid.size)
            self._first += np.bincount(place, mass * value, self._grid.size)
            return
        right = mass * np.clip((value - left) / (self._grid[place + 1] - left), 0.0, 1.0)
        self._mass += np.bincount(place, mass - right, self._grid.size)
        self._mass += np.bincount(place + 1, right, self._grid.size)

    def law(self, *, spread: bool) -> tuple[Array, Array]:
        some = self._mass > 1e-290
        mass = self._mass[some]
        return (self._grid if spread else self._first / np.maximum(self._mass, 1e-290))[some], mass
