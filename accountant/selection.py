"""The best of a random number of private runs: what choosing costs, the search included.

A base mechanism Q (draw hyper-parameters, train, score) is run K times, each time afresh and
independently of what came before, and the result with the best score is released, alone. K has a
truncated negative binomial law, drawn without looking at the data [Papernot, Steinke 2022,
"Hyperparameter Tuning with Rényi Differential Privacy", Definition 1 and Theorem 2].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import NDArray

from accountant.errors import check, check_delta
from accountant.events import Event
from accountant.rdp.accountant import RdpAccountant
from accountant.rdp.conversion import improved

ORDERS: NDArray[np.float64] = np.concatenate(
    [1 + np.logspace(-2, 1, 60), np.arange(12.0, 64.0), np.logspace(6, 12, 25, base=2)]
)
"""Rényi orders at which a search is priced."""

_TAIL = 1e-12
_LEAST_LOG_GAMMA = -30.0


@dataclass(frozen=True)
class TruncatedNegativeBinomial:
    """How many runs: P(K = k) ∝ (1 − γ)^k Γ(k + η) / (k! Γ(η)), k ≥ 1; η = 0 is logarithmic.

    * η = 1 is geometric; smaller η has a heavier tail and costs less.

    >>> law = TruncatedNegativeBinomial.with_mean(20.0, eta=0.0)
    >>> round(law.mean, 9), round(law.gamma, 6)
    (20.0, 0.010956)
    """

    eta: float
    gamma: float

    def __post_init__(self) -> None:
        check(-1 < self.eta < math.inf, "eta", self.eta, "must be > -1")
        check(0 < self.gamma < 1, "gamma", self.gamma, "must lie in (0, 1)")

    @classmethod
    def with_mean(cls, mean: float, eta: float = 0.0) -> TruncatedNegativeBinomial:
        """The law with that expected number of runs."""
        check(1 < mean < 1e6, "trials", mean, "must be more than 1 in the mean")

        def excess(log_gamma: float) -> float:
            return math.log(cls(eta, math.exp(log_gamma)).mean / mean)

        if excess(_LEAST_LOG_GAMMA) < 0:  # so heavy a tail that a draw of K might never end
            check(False, "eta", eta, f"is too low for {mean:g} trials in the mean", "raise it")
        found = scipy.optimize.brentq(excess, _LEAST_LOG_GAMMA, -1e-9, xtol=1e-13)
        return cls(eta, math.exp(found))

    @property
    def mean(self) -> float:
        """E[K]."""
        if self.eta == 0:
            return (1 / self.gamma - 1) / -math.log(self.gamma)
        return (
            self.eta
            * (1 - self.gamma)
            / (self.gamma * -math.expm1(self.eta * math.log(self.gamma)))
        )

    def log_probabilities(self, most: int) -> NDArray[np.float64]:
        """(most,) log P(K = 1), …, log P(K = most)."""
        k = np.arange(1.0, most + 1)
        log_gamma = math.log(self.gamma)
        if self.eta == 0:
            return k * math.log1p(-self.gamma) - np.log(k) - math.log(-log_gamma)
        # Γ(k + η) / Γ(η) and γ^−η − 1 change sign together at η = 0: both by their absolute value.
        scale = math.log(abs(math.expm1(-self.eta * log_gamma)))
        rising = scipy.special.gammaln(k + self.eta) - scipy.special.gammaln(self.eta)
        return k * math.log1p(-self.gamma) + rising - scipy.special.gammaln(k + 1) - scale

    def draw(self, rng: np.random.Generator) -> int:
        """One K."""
        below, most, u = 0.0, 0, rng.random()
        while below < 1 - _TAIL:
            most = max(1024, 2 * most)
            total = np.cumsum(np.exp(self.log_probabilities(most)))
            if u <= total[-1]:
                return int(np.searchsorted(total, u)) + 1
            below = float(total[-1])
        return most


@dataclass(frozen=True)
class SearchBound:
    """ε of a search, and the two orders at which the base run's Rényi divergence decides it.

    Any run whose divergence is at most ``at_order`` at ``order`` and at most ``at_other`` at
    ``other`` may be among the candidates: the search still costs at most ``epsilon``.
    """

    epsilon: float
    order: float
    at_order: float
    other: float
    at_other: float


def searched(
    orders: NDArray[np.float64], curve: NDArray[np.float64], law: TruncatedNegativeBinomial
) -> tuple[NDArray[np.float64], int]:
    """Rényi curve of the whole search from that of one run, and where the second order lies.

    ε'(λ) = ε(λ) + (1 + η)(1 − 1/λ̂) ε(λ̂) + (1 + η) log(1/γ)/λ̂ + log E[K]/(λ − 1), with the λ̂
    among ``orders`` that makes it least [Theorem 2].
    """
    chosen = (1 + law.eta) * ((1 - 1 / orders) * curve - math.log(law.gamma) / orders)
    other = int(np.argmin(np.where(np.isfinite(chosen), chosen, np.inf)))
    return curve + chosen[other] + math.log(law.mean) / (orders - 1), other


def best_of_random(
    base: list[tuple[Event, int]], law: TruncatedNegativeBinomial, delta: float
) -> SearchBound:
    """What releasing the best of K independent runs costs [Theorem 2].

    Args:
        base: what one run releases, its score included.
        law: of the number of runs.
        delta: δ of the whole search.

    >>> from accountant.events import Gaussian
    >>> law = TruncatedNegativeBinomial.with_mean(20.0)
    >>> one = RdpAccountant().compose(Gaussian(noise_multiplier=10.0)).epsilon(1e-5).upper
    >>> many = best_of_random([(Gaussian(noise_multiplier=10.0), 1)], law, 1e-5).epsilon
    >>> round(one, 3), round(many, 3)
    (0.375, 0.741)
    """
    check_delta(delta)
    accountant = RdpAccountant()
    accountant.compose_all(base)
    curve = accountant.rdp(ORDERS)
    total, other = searched(ORDERS, curve, law)
    epsilons = improved(ORDERS, total, delta)
    best = int(np.argmin(epsilons))
    return SearchBound(
        float(epsilons[best]),
        float(ORDERS[best]),
        float(curve[best]),
        float(ORDERS[other]),
        float(curve[other]),
    )


def best_of_all(
    base: list[tuple[Event, int]], runs: int, delta: float, once: list[tuple[Event, int]]
) -> SearchBound:
    """What releasing all of ``runs`` runs costs, and ``once`` besides: plain Rényi composition.

    It holds also where later runs are chosen in view of earlier ones.
    """
    check_delta(delta)
    check(runs >= 1, "trials", runs, "must be at least 1")
    one, rest = RdpAccountant(), RdpAccountant()
    one.compose_all(base)
    rest.compose_all(once)
    curve = one.rdp(ORDERS)
    epsilons = improved(ORDERS, runs * curve + rest.rdp(ORDERS), delta)
    best = int(np.argmin(epsilons))
    order, value = float(ORDERS[best]), float(curve[best])
    return SearchBound(float(epsilons[best]), order, value, order, value)
