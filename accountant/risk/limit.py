"""A bound on any attacker, in place of a budget in ε: what noise keeps it, what would pass it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accountant.calibration import Events
from accountant.composition import added_up, are_among
from accountant.errors import BudgetExceeded, check
from accountant.events import Event
from accountant.rdp.accountant import RdpAccountant
from accountant.risk.calibrate import calibrate_noise_to_advantage, calibrate_noise_to_power
from accountant.statement import round_up
from accountant.tradeoff import TradeOff

_TOLERANCE = 1e-4  # relative, of calibrated noise, on the side of more
_MOST_EVENTS = 8  # distinct noises that are priced one by one; more are told by so many above


@dataclass(frozen=True, kw_only=True)
class RiskLimit:
    """An attacker's TPR − FPR, or TPR at a FPR, that is not to be passed; one of the two.

    >>> limit = RiskLimit(tpr_at_fpr=(0.02, 0.001))
    >>> str(limit)
    '2 % true positives at 0.1 % false positives'
    """

    advantage: float | None = None
    tpr_at_fpr: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        both = (self.advantage is None) == (self.tpr_at_fpr is None)
        asked = self.advantage, self.tpr_at_fpr
        check(not both, "risk", asked, "must be advantage or tpr_at_fpr, one of the two")
        if self.advantage is not None:
            rule = "must lie strictly between 0 and 1"
            check(0 < self.advantage < 1, "advantage", self.advantage, rule)
        else:
            tpr, fpr = self._rates
            check(0 < fpr < tpr < 1, "tpr_at_fpr", (tpr, fpr), "must be TPR > FPR, both in (0, 1)")

    @property
    def _rates(self) -> tuple[float, float]:
        assert self.tpr_at_fpr is not None
        return self.tpr_at_fpr

    @property
    def most(self) -> float:
        """What is not to be passed."""
        return self._rates[0] if self.advantage is None else self.advantage

    def reached(self, events: Events) -> float:
        """The certified upper bound on that figure of all that was released."""
        curve = TradeOff(events, most_events=_MOST_EVENTS)
        return curve.advantage if self.advantage else curve.true_positives(self._rates[1])

    def calibrate(self, events_at: Callable[[float], Events]) -> float:
        """The least noise, to a ten-thousandth, that keeps it."""
        how: dict[str, Any] = {"tolerance": _TOLERANCE, "most_events": _MOST_EVENTS}
        if self.advantage is not None:
            noise = calibrate_noise_to_advantage(self.advantage, events_at, **how)
        else:
            noise = calibrate_noise_to_power(*self._rates, events_at, **how)
        while self.reached(events_at(noise)) > self.most:  # a schedule's figures are less fine
            noise *= 1 + 5 * _TOLERANCE
        return noise

    def to_json(self) -> dict[str, Any]:
        """What was asked."""
        if self.advantage is not None:
            return {"advantage": self.advantage}
        return {"tpr_at_fpr": list(self._rates)}

    def __str__(self) -> str:
        if self.advantage is not None:
            return f"an advantage of {100 * self.advantage:g} %"
        tpr, fpr = self._rates
        return f"{100 * tpr:g} % true positives at {100 * fpr:g} % false positives"


class RiskBudget:
    """Allows what was planned, whose risk is known, or else what still keeps the limit."""

    epsilon = None

    def __init__(self, limit: RiskLimit, planned: list[tuple[Event, int]]) -> None:
        self.limit = limit
        self._allowed: dict[Event, int] = {}
        if limit.reached(planned) <= limit.most:
            self._allowed = added_up(planned)

    def refuse_overdraft(
        self, step: int, so_far: RdpAccountant, event: Event, count: int = 1
    ) -> None:
        """Raise BudgetExceeded if ``event`` on top of what was composed would pass the limit."""
        after = added_up([*so_far.events, (event, count)])
        if are_among(after, self._allowed):
            return
        reached = self.limit.reached(after.items())
        if reached > self.limit.most:
            raise BudgetExceeded(
                f"step {step} would let an attacker reach {round_up(100 * reached, 3)} %, more "
                f"than {self.limit}; take fewer epochs, add noise or allow more"
            )
