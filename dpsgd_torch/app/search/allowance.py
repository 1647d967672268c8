"""How much of the whole each trial may spend, and the noise that keeps it there.

The theorem behind a search asks for one base mechanism, while candidates differ in batch size,
epochs and clip. What it uses of it are two numbers: bounds on its Rényi divergence at two orders.
The preset's own run, with the noise at which the whole search costs the wanted ε, sets both; every
candidate gets the least noise at which its own divergence stays within them. So the mixture of
candidates (which one is drawn does not depend on the data) stays within them too, and the search
costs what the preset's run would have made it cost.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import scipy  # which loads its submodules when they are first used

from accountant import BudgetNotReached, Event, RdpAccountant, Unreachable
from accountant.selection import (
    SearchBound,
    TruncatedNegativeBinomial,
    best_of_all,
    best_of_random,
)

Events = list[tuple[Event, int]]
_LEAST, _MOST = 0.05, 1e4  # noise multipliers that are considered
_ROUNDING = 1e-12  # relative: of a sum of divergences taken in another order


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the number of runs and the choice among them are made.

    Args:
        law: of a random number of runs, or None for ``trials`` of them, all of which are paid for.
        trials: the number, or its mean.
        once: what is released once, besides (the choice itself).
    """

    law: TruncatedNegativeBinomial | None
    trials: int
    once: tuple[tuple[Event, int], ...] = ()

    def price(self, base: Events, delta: float) -> SearchBound:
        """What a search costs whose every run releases ``base``."""
        if self.law:
            return best_of_random(base, self.law, delta)
        return best_of_all(base, self.trials, delta, list(self.once))


def allowance(
    rule: Rule, events_at: Callable[[float], Events], epsilon: float, delta: float
) -> SearchBound:
    """The two divergences a trial may have, from ``events_at``: noise → the preset's own events.

    Raises:
        Unreachable: no noise makes the search cost as little as ``epsilon``.
    """

    def excess(log_noise: float) -> float:
        priced = rule.price(events_at(10.0**log_noise), delta).epsilon
        return priced * (1 + 10 * _ROUNDING) - epsilon

    if excess(4.0) > 0:
        raise Unreachable(
            f"epsilon = {epsilon:g}: choosing among {rule.trials} trials costs more whatever the "
            "noise; raise --epsilon, lower --trials, or release less besides training (--set "
            "frequencies_epsilon=0.05)"
        )
    low, high = -1.0, 4.0
    if excess(low) > 0:
        found = scipy.optimize.brentq(excess, low, high, xtol=1e-9)
        while excess(found) > 0:  # the safe side of the root
            found += 1e-8
        low = found
    elif (spent := rule.price(events_at(10.0**low), delta).epsilon) < 0.999 * epsilon:
        warnings.warn(
            f"epsilon = {epsilon:g}: is not reached: the search for noise ends at a multiplier of "
            f"{10.0**low:g}, which costs {spent:.6g} at δ = {delta:g}; lower --epsilon to that",
            BudgetNotReached,
            stacklevel=2,
        )
    bound = rule.price(events_at(10.0**low), delta)
    return dataclasses.replace(bound, epsilon=bound.epsilon * (1 + 10 * _ROUNDING))


def within(bound: SearchBound, events: Events, rounding: float = _ROUNDING) -> bool:
    """Whether a run that released ``events`` stayed within its allowance."""
    accountant = RdpAccountant()
    accountant.compose_all(events)
    spent = accountant.rdp([bound.order, bound.other])
    slack = 1 + rounding
    return bool(spent[0] <= bound.at_order * slack and spent[1] <= bound.at_other * slack)


def noise_within(bound: SearchBound, events_at: Callable[[float], Events]) -> float:
    """The least noise multiplier at which a candidate stays within ``bound``, to a millionth.

    Raises:
        Unreachable: none does.
    """

    def affordable(noise: float) -> bool:
        return within(bound, events_at(noise), 0.0)

    low, high = _LEAST, _MOST
    if not affordable(high):
        raise Unreachable(
            f"noise_multiplier = {high:g}: still above what a trial may spend; narrow --vary"
        )
    if affordable(low):
        return low
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if affordable(middle) else (middle, high)
    return high
