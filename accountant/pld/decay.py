r"""How fast the transform of a sum of losses surely falls along a contour.

With P tilted by exp(tL) and normalised, φ(u) = M(t + iu)/M(t) is E[exp(iuL)], and two bounds on
its modulus hold at once:

**By parts.** On outcomes z between which the loss is monotone, ∫ f exp(iuL) dz is at most V/|u|, V
the values of f/|dL/dz| at the ends and its total variation between them (``Pair.variation``).
What is on other outcomes adds at most their mass.

**By turning.** Let ν be a part of tilted P, of mass m, on losses no further apart than w (from
``Pair.cells``). For u w ≤ π, sin²(x/2) ≥ (x/π)² gives

    |∫ exp(iuL) dν|² = m² − 2 ∬ sin²(u(L − L')/2) dν dν' ≤ m² (1 − 4u² Var_ν(L)/π²),

and what is not in ν adds at most 1 − m.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from accountant.dominating_pairs.pairs import Array, Cells, Variation
from accountant.pld.sums import Sum

_EPS = float(np.finfo(np.float64).eps)
_RATIO = math.sqrt(2.0)
_MOST_LEVELS = 100
_MOST_TURNED = 16  # distinct losses looked at closely, of those that come most often
_DEEP = 1500.0  # e-folds: no bound is asked for below


@lru_cache(maxsize=2)
def decay_along(total: Sum, tilt: float, smoothing: float, start: float) -> Decay:
    """Looked up where a contour is placed, and again where it is cut off."""
    return Decay(total, tilt, smoothing, start)


class Decay:
    """log of a bound on |M_ς(t + iu)| / M_ς(t) that falls as u > 0 grows."""

    def __init__(self, total: Sum, tilt: float, smoothing: float, start: float) -> None:
        """``start`` is about where it begins to be asked for."""
        self.variance = total.gaussian_variance + smoothing
        self.counts = np.array([count for _, count in total.parts], dtype=np.float64)
        variations = [pair.variation(tilt) for pair, _ in total.parts]
        self.log_v = np.array([variation.log_v[0] for variation in variations])
        least = float(self.log_v.max(initial=-math.inf, where=np.isfinite(self.log_v)))
        end = math.sqrt(2 * _DEEP / self.variance)
        if self.log_v.size and least > -math.inf:
            end = min(end, 2 * math.exp(min(least, 600.0)))
        count = math.ceil(math.log(max(end / start, 1.0)) / math.log(_RATIO))
        self.edges: Array = start * _RATIO ** np.arange(min(count, _MOST_LEVELS) + 1.0)
        log_u = np.log(self.edges)
        often = set(np.argsort(-self.counts, kind="stable")[:_MOST_TURNED].tolist())
        self.falls = np.zeros(self.edges.size)  # from each edge to the next, without the Gaussian
        for i, (pair, n) in enumerate(total.parts):
            bound = np.minimum(self.log_v[i] - log_u, 0.0)
            if i in often:
                in_parts = log_in_parts(variations[i], self.edges)
                by_turning = log_turning(pair.cells(tilt), self.edges)
                bound[:-1] = np.minimum.reduce([bound, in_parts, by_turning])[:-1]
            self.falls += n * bound
        at_edge = self.falls - self.variance * self.edges**2 / 2
        self._later = np.maximum.accumulate(at_edge[::-1])[::-1]
        areas = at_edge + np.log(np.append(np.diff(self.edges), 1.0))
        areas[-1] = self._log_tail_by_parts(float(self.edges[-1]))
        self._log_areas = np.logaddexp.accumulate(areas[::-1])[::-1]

    def _level(self, u: float) -> int:
        return int(np.searchsorted(self.edges, u, side="right")) - 1

    def __call__(self, u: float) -> float:
        gaussian, level = -self.variance * u * u / 2, self._level(u)
        bound = self._by_parts(u)
        if 0 <= level < self.edges.size - 1:
            later = float(self._later[level + 1])
            return min(gaussian + bound, max(gaussian + float(self.falls[level]), later))
        return gaussian + bound

    def _by_parts(self, u: float) -> float:
        return -float(self.counts @ np.maximum(math.log(u) - self.log_v, 0.0))

    def falls_to(self, level: float, start: float) -> float:
        """The least u at which the bound, and the mean of u as much beyond, is at ``level``."""

        def above(u: float) -> bool:
            return max(self(u), self.log_tail(u) - math.log(u)) > level

        low = high = start
        while above(high):
            low, high = high, 2 * high
        for _ in range(6):  # to a hundredth
            middle = math.sqrt(low * high)
            low, high = (middle, high) if above(middle) else (low, middle)
        return high

    def log_tail(self, u: float) -> float:
        """log of a bound on the integral from u on."""
        level, bound = self._level(u), self._log_tail_by_parts(u)
        if 0 <= level < self.edges.size - 1:
            here = float(self.falls[level]) - self.variance * u * u / 2
            here += math.log(float(self.edges[level + 1]) - u)
            bound = min(bound, float(np.logaddexp(here, self._log_areas[level + 1])))
        return bound

    def _log_tail_by_parts(self, u: float) -> float:
        power = float(self.counts[self.log_v < math.log(u)].sum())
        rate = max(self.variance * u, (power - 1) / u)
        return self._by_parts(u) - self.variance * u * u / 2 - math.log(rate)


def log_in_parts(variation: Variation, frequencies: Array) -> Array:
    """For each u, log of a bound on |φ| from u on, by the part of the outcomes that gives most."""
    mass, log_v = variation.mass[1:], variation.log_v[1:]
    if not mass.size:
        return np.zeros(frequencies.size)
    left = np.exp(np.minimum(log_v - np.log(frequencies)[:, None], 1.0))
    gain = np.maximum((mass - left).max(axis=1), 0.0) * (1 - 1e-9)
    return np.asarray(np.log1p(-gain))


def log_turning(cells: Cells, frequencies: Array) -> Array:
    """For each u, log of a bound on |φ| from u to _RATIO·u, from the window that gives most.

    The cells' losses are known to lie between ``low`` and ``high``; by Minkowski's inequality
    their standard deviation is at least that of ``low`` less the root mean square of the gaps.
    """
    bound = np.zeros(frequencies.size)
    if not cells.mass.size:
        return bound
    middle = cells.low[int(np.argmax(cells.mass))]
    low = cells.low - middle
    sums = [np.append(0.0, np.cumsum(cells.mass * low**k)) for k in range(3)]
    start = np.arange(low.size)
    for i, u in enumerate(frequencies):
        stop = np.searchsorted(cells.high, cells.low + math.pi / (_RATIO * u) * (1 - 1e-9), "right")
        stop = np.maximum(stop, start)
        m, m1, m2 = (s[stop] - s[start] for s in sums)
        best = int(np.argmax(np.where(stop - start > 1, m2 - m1 * m1 / np.maximum(m, 1e-300), 0)))
        part = slice(best, int(stop[best]))
        mass, loss = cells.mass[part], cells.low[part]
        held = float(mass.sum())
        if held <= 0:
            continue
        variance = float(mass @ (loss - mass @ loss / held) ** 2) / held
        gaps = float(mass @ (cells.high[part] - loss) ** 2) / held
        rounding = 8 * _EPS * float(np.abs(loss).max())
        spread = math.sqrt(variance) - math.sqrt(gaps) - rounding
        turned = min(2 * u * max(spread, 0.0) / math.pi, 1.0) ** 2 * (1 - 1e-9)
        bound[i] = math.log1p(-held * turned / (1 + math.sqrt(1 - turned)) * (1 - 1e-9))
    return bound
