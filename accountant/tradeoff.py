"""Trade-off curve: the best true-positive rate of any attacker at a false-positive rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import scipy  # which loads its submodules when they are first used

from accountant.errors import check
from accountant.events import Event, Relation
from accountant.pld.accountant import PldAccountant
from accountant.pld.coarsening import coarser

USUAL_RATES = (0.001, 0.01, 0.1)
_ROUGHLY = 1e-3  # the same, where noises are told by fewer
_SOUGHT, _FOUND = 1e-4, 1e-5  # widths of δ, relative: while the best ε is sought, and at it
_TOLERANCE = 1e-4  # of that ε: what it costs is of second order
_FURTHEST = 60.0
_UP = 1 + 1e-14  # above what rounding a line's height may take


class TradeOff:
    """What an attacker reaches who tells neighbours apart by all that was released.

    * A test of false-positive rate α has TPR ≤ δ(ε) + exp(ε) α for every real ε, and by the same
      with the roles exchanged δ(−ε) ≤ 1 − exp(−ε) (1 − δ(ε)) [Kairouz, Oh, Viswanath 2015,
      Theorem 2.1]; together these lines are the trade-off curve [Dong, Roth, Su 2022, Sec. 2.4].
    * δ(ε) is the upper end of the exact accountant's interval, so no value is below the truth.
    * It holds whichever of the two neighbours the attacker takes for the null hypothesis.

    Args:
        events: (event, count) pairs of all that was released.
        most_events: where there are more distinct noises than these, they are told by so many that
            cost no less, and lines are sought less finely: quick, and still above the truth.

    >>> from accountant import Gaussian
    >>> curve = TradeOff([(Gaussian(noise_multiplier=1.0), 1)])
    >>> round(curve.true_positives(0.01), 6), round(curve.advantage, 6)
    (0.092362, 0.382925)
    """

    def __init__(
        self, events: Iterable[tuple[Event, int]], *, most_events: int | None = None
    ) -> None:
        self._accountant = PldAccountant().compose_all(events)
        self._finely = most_events is None or len(self.events) <= most_events
        if most_events is not None and not self._finely:
            fewer = coarser(self.events, most_events, costlier=True)
            self._accountant = PldAccountant().compose_all(fewer)
        self._known: dict[float, float] = {}  # ε ≥ 0 → δ
        self._powers: dict[float, float] = {}  # false-positive rate → true positives

    @property
    def events(self) -> list[tuple[Event, int]]:
        """Each distinct event with its count."""
        return self._accountant.events

    @property
    def relation(self) -> Relation:
        """Which data sets the attacker tells apart."""
        return self._accountant.relation or Relation.ADD_OR_REMOVE_ONE

    def delta(self, epsilon: float, width: float = _FOUND) -> float:
        """The most of TPR − exp(ε) FPR, for any real ε."""
        width = width if self._finely else _ROUGHLY
        if epsilon < 0:
            return -math.expm1(epsilon) + math.exp(epsilon) * self.delta(-epsilon, width)
        if epsilon in self._known and not self._finely:
            return self._known[epsilon]
        value = self._accountant.delta(epsilon, width).upper
        self._known[epsilon] = min(value, self._known.get(epsilon, 1.0))
        return value

    @property
    def advantage(self) -> float:
        """Total variation distance: the most of TPR − FPR, over all tests."""
        return self.delta(0.0)

    def true_positives(self, rate: float) -> float:
        """The most true positives at a false-positive rate in (0, 1)."""
        check(0 < rate < 1, "false_positive_rate", rate, "must lie in (0, 1)")
        if not self.delta(0.0):
            return rate
        if rate not in self._powers:
            self.delta(self.best_epsilon(rate))
            self._powers[rate] = min(min(value for _, value in self._lines(rate)) * _UP, 1.0)
        return self._powers[rate]

    def drawn(self, rate: float) -> float:
        """The same from what is known already: no lower, and for no work."""
        self.delta(0.0)
        return min(min(value for _, value in self._lines(rate)) * _UP, 1.0)

    def accuracy(self, prior: float) -> float:
        """Bayes accuracy: the most often a guess is right, members having probability ``prior``.

        (1 − π) + sup {π TPR − (1 − π) FPR} = (1 − π) + π δ(log((1 − π)/π)).
        """
        check(0 < prior < 1, "prior", prior, "must lie in (0, 1)")
        odds = math.log1p(-prior) - math.log(prior)
        return min((1 - prior) + prior * self.delta(odds), 1.0)

    def posterior(self, prior: float, rate: float) -> float:
        """Positive predictive value: how far a positive test of that rate raises a prior.

        π TPR/(π TPR + (1 − π) FPR) [Jayaraman et al. 2021], over tests of that false-positive rate.
        """
        check(0 < prior < 1, "prior", prior, "must lie in (0, 1)")
        seen = prior * self.true_positives(rate)
        return seen / (seen + (1 - prior) * rate)

    def best_epsilon(self, rate: float) -> float:
        """The ε whose line is lowest at this rate, about.

        A line's height is convex in exp(ε), so the best lies next to the best that is known.
        """
        here = min(self.delta(0.0, _SOUGHT) + rate, 1.0)
        ends = (
            math.log((1 - here) / (1 - rate)) if here < 1 else -_FURTHEST,
            math.log(here / rate),
        )
        low, high = max(ends[0], -_FURTHEST), min(ends[1], _FURTHEST)
        lines = self._lines(rate)
        best = min(range(len(lines)), key=lambda i: lines[i][1])
        if best > 0:
            low = max(low, lines[best - 1][0])
        if best + 1 < len(lines):
            high = min(high, lines[best + 1][0])
        if high - low < _TOLERANCE:
            return lines[best][0]
        found = scipy.optimize.minimize_scalar(
            lambda x: self.delta(float(x), _SOUGHT) + math.exp(x) * rate,
            bounds=(low, high),
            method="bounded",
            options={"xatol": _TOLERANCE if self._finely else _ROUGHLY * (high - low) * 30},
        )
        return float(found.x)

    def _lines(self, rate: float) -> list[tuple[float, float]]:
        """Every ε looked at, and its negative, with the height of its line at this rate."""
        told = {}
        for epsilon, delta in self._known.items():
            told[-epsilon] = 1 - math.exp(-epsilon) * max(1 - delta - rate, 0.0)
            told[epsilon] = delta + math.exp(epsilon) * rate
        return sorted(told.items())


def attacker_power(
    events: Iterable[tuple[Event, int]], false_positive_rates: Iterable[float] = USUAL_RATES
) -> list[float]:
    """The most true positives any attacker reaches at each false-positive rate.

    Whoever decides from all that is released whether a record was used; never below the truth.

    >>> from accountant import Gaussian
    >>> [round(power, 3) for power in attacker_power([(Gaussian(noise_multiplier=1.0), 1)])]
    [0.018, 0.092, 0.389]
    """
    curve = TradeOff(events)
    return [curve.true_positives(rate) for rate in false_positive_rates]
