"""Privacy losses to add up, and the saddle point of their transform, near which to integrate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accountant.dominating_pairs.mixture import Mixture
from accountant.dominating_pairs.pairs import Array, Pair, TooFine, cumulants

_EPS = float(np.finfo(np.float64).eps)
_TILTS = 1.25 ** np.arange(-7.0, 6.0)  # considered, around the saddle point
_LEAST_TILT, _MOST_TILT = 1e-6, 1e150


class Sum:
    """Independent privacy losses to add up: pairs with counts, and plain Gaussian noise."""

    def __init__(self, parts: list[tuple[Pair, int]], gaussian_variance: float = 0.0) -> None:
        self.parts = parts
        self.gaussian_variance = gaussian_variance
        self._known: dict[float, tuple[float, float, float]] = {}

    def without_tails(self, log_mass: float) -> Sum | None:
        """The sum less outcomes of a mass of exp(log_mass) in all; None if there are none."""
        each = log_mass - math.log(sum(n for _, n in self.parts))
        parts = [(pair.without_tail(each), n) for pair, n in self.parts]
        if all(cut is pair for (cut, _), (pair, _) in zip(parts, self.parts, strict=True)):
            return None
        return Sum(parts, self.gaussian_variance)

    @property
    def alike(self) -> tuple[Mixture, int] | None:
        """The pair of which all this is made up, where it is a sampled Gaussian release."""
        (pair, n), *others = self.parts
        plain = not others and not self.gaussian_variance and isinstance(pair, Mixture)
        return (pair, n) if plain and isinstance(pair, Mixture) else None

    def ceiling(self, delta: float) -> tuple[float, float]:
        """Bounds on ε from the largest loss alone: L ≤ a, and P(L = a) = p where that is an atom.

        δ(ε) = 0 from a on; below, δ(ε) ≥ p (1 − exp(ε − a)).
        """
        if self.gaussian_variance:
            return 0.0, math.inf
        most = [(n, *pair.most_loss()) for pair, n in self.parts]
        loss = sum(n * a for n, a, _ in most)
        ratio = math.log(delta) - sum(n * log_p for n, _, log_p in most)
        slack = 8 * _EPS * len(most) * abs(loss)
        low = loss + math.log1p(-math.exp(ratio)) - slack if ratio < -1e-12 else 0.0
        return max(low, 0.0), loss + slack

    def cumulants(self, tilt: float) -> tuple[float, float, float]:
        """log M(tilt), and mean and variance of L under the tilted P, from few points."""
        if tilt not in self._known:
            v = self.gaussian_variance
            total = np.array([v * tilt * (tilt + 1) / 2, v * (tilt + 0.5), v])
            for pair, count in self.parts:
                total += count * np.array(cumulants(pair.coarse(tilt), tilt))
            self._known[tilt] = (float(total[0]), float(total[1]), float(total[2]))
        return self._known[tilt]


@dataclass(frozen=True)
class Saddle:
    """Where the integrand is smallest, and a first estimate of ε and δ there."""

    tilts: Array
    moments: Array  # log M at the tilts
    slope: float  # −d log δ/dε, about
    epsilon: float
    log_delta: float


def saddle(total: Sum, *, log_delta: float | None = None, epsilon: float = 0.0) -> Saddle:
    """The saddle point for a given δ, or else for a given ε."""

    def log_prefactor(tilt: float, variance: float) -> float:
        return math.log1p(tilt) + math.log1p(tilt * math.sqrt(2 * math.pi * variance))

    def rises(tilt: float) -> float:
        moment, mean, variance = total.cumulants(tilt)
        if log_delta is None:
            return mean - epsilon - 1 / tilt
        return tilt * mean - moment + log_prefactor(tilt, variance) + log_delta

    centre = _crossing(rises, 5 / math.sqrt(max(total.cumulants(1.0)[2], 1e-290)))
    tilts = centre * _TILTS
    known = [total.cumulants(tilt) for tilt in tilts]
    moments = np.array([moment for moment, _, _ in known])
    prefactors = np.array([log_prefactor(t, v) for t, (_, _, v) in zip(tilts, known, strict=True)])
    if not np.isfinite(moments - prefactors).any():
        raise TooFine
    if log_delta is None:
        log_delta = min(float(np.nanmin(moments - tilts * epsilon - prefactors)), -1e-3)
    else:
        epsilon = float(np.nanmin((moments - log_delta - prefactors) / tilts))
    return Saddle(tilts, moments, centre, epsilon, log_delta)


def _crossing(rises: Callable[[float], float], start: float) -> float:
    """Where an increasing function of the tilt crosses zero, to a tenth."""
    low = high = min(max(start, _LEAST_TILT), _MOST_TILT)
    if rises(start) > 0:
        while low > _LEAST_TILT and rises(low) > 0:
            low, high = low / 2, low
    else:
        while high < _MOST_TILT and not rises(high) > 0:
            low, high = high, high * 2
    for _ in range(3):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) > 0 else (middle, high)
    return math.sqrt(low * high)
