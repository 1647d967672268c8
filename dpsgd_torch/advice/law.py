"""The laws: what noise a budget leaves in a run, the learning rate for it, the accuracy it keeps.

A run of T steps adds up T averaged gradients, clipped to norm C, and T noises σC / B. Signals add
up as they are, noises as squares, so that what decides is one ratio,

    κ = σ / (B √T),

the noise in a coordinate of the mean of all T gradients, in units of C. With as large a batch as n
it is 1 / (μ n), whatever T is: μ is the Gaussian-differential-privacy parameter of (ε, δ).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Self

from accountant.gaussian import gaussian_log_delta

ENOUGH = 3.0
"""Batch in units of μ n / √T from which on κ is within 3 % of what any batch would have."""

_MOST_MU = 1e4


@lru_cache(maxsize=4096)
def mu_of(epsilon: float, delta: float) -> float:
    """The μ of the Gaussian mechanism that costs (ε, δ) [Balle and Wang 2018, Thm. 8].

    >>> round(mu_of(1.0, 1e-5), 4)
    0.2681
    """
    low, high, goal = 0.0, 1.0, math.log(delta)
    while high < _MOST_MU and gaussian_log_delta(high, epsilon)[0] < goal:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        below = gaussian_log_delta(middle, epsilon)[0] < goal
        low, high = (middle, high) if below else (low, middle)
    return high


def noise_of_run(n: int, batch: float, steps: float, mu: float) -> float:
    """κ, by the central limit of Poisson-sampled Gaussians [Bu, Dong, Long, Su 2020, Sec. 3.1].

    An estimate to choose by; what is run is calibrated exactly.

    >>> of_all = noise_of_run(1000, 1000, 10_000, 0.5)
    >>> round(of_all * 0.5 * 1000, 3), noise_of_run(1000, 10, 100, 0.5) > 1.5 * of_all
    (1.0, True)
    """
    loud = (mu * n / batch) ** 2 / steps
    return 1 / (batch * math.sqrt(steps * math.log1p(loud)))


@dataclass(frozen=True, kw_only=True)
class Law:
    """Coefficients for one kind of model, fitted to what was measured.

    Attributes:
        rate: r of log η = r₀ + r₁ log κ + r₂ log T, for clip norm 1.
        kept: k of logit(kept) = k₀ + k₁ log κ + k₂ log min(T, T₀).
        settled: T₀, from which on only κ was measured to matter.
        measured: smallest and largest n, κ, parameters and T that the fit has seen, by name.
        errors: on cases that were left out, by name.
    """

    rate: tuple[float, ...]
    kept: tuple[float, ...]
    settled: int
    measured: Mapping[str, tuple[float, float]]
    errors: Mapping[str, float]

    @classmethod
    def of(cls, kind: str) -> Self:
        """The law of "head" or "network"."""
        given = written()[kind]
        measured = {name: (low, high) for name, (low, high) in given["measured"].items()}
        return cls(rate=tuple(given["rate"]), kept=tuple(given["kept"]), settled=given["settled"],
                   measured=measured, errors=given["errors"])  # fmt: skip

    def learning_rate(self, kappa: float, steps: int) -> float:
        """η at the first step, falling linearly to 0; κ outside what was measured is held there."""
        low, high = self.measured["kappa"]
        within = min(max(kappa, low), high)
        return math.exp(_dot(self.rate, within, steps))

    def share_kept(self, kappa: float, steps: float) -> float:
        """Part, in (0, 1), of the accuracy above chance that 180 steps reach without noise."""
        told = _dot(self.kept, kappa, min(steps, self.settled))
        return 1 / (1 + math.exp(-told))


def regressors(kappa: float, steps: float) -> tuple[float, ...]:
    """What the coefficients are of: 1, log κ, log T."""
    return (1.0, math.log(kappa), math.log(steps))


def _dot(coefficients: tuple[float, ...], *values: float) -> float:
    pairs = zip(coefficients, regressors(*values), strict=True)
    return min(max(sum(c * x for c, x in pairs), -60.0), 60.0)


@cache
def written() -> dict[str, Any]:
    """What ``benchmarks/advice.py`` wrote: a law for each kind, its date and its command."""
    found: dict[str, Any] = json.loads(files(__package__).joinpath("measured.json").read_text())
    return found
