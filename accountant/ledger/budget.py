"""A budget that one more step must not pass, kept without pricing the run at every step."""

from __future__ import annotations

from accountant.calibration import cost
from accountant.composition import added_up, are_among
from accountant.errors import BudgetExceeded
from accountant.events import Event
from accountant.rdp.accountant import RdpAccountant
from accountant.statement import round_up

_AHEAD = (4096, 256, 16, 1)  # steps to certify at once, the most that fit


class Budget:
    """Allows what is cheap by Rényi bound, or part of something priced exactly before.

    >>> from accountant.events import Gaussian
    >>> release, so_far = Gaussian(noise_multiplier=5.0), RdpAccountant()
    >>> budget = Budget(1.0, delta=1e-5)
    >>> budget.refuse_overdraft(0, so_far, release)
    >>> budget.refuse_overdraft(1, so_far.compose(release), release)
    Traceback (most recent call last):
    accountant.errors.BudgetExceeded: step 1 would reach ε = 1.0608 > 1 (δ = 1e-05); ...
    """

    def __init__(
        self, epsilon: float, delta: float, planned: list[tuple[Event, int]] | None = None
    ) -> None:
        self.epsilon, self.delta = epsilon, delta
        self._allowed: dict[Event, int] = {}
        if planned and cost(planned, delta) <= epsilon:
            self._allowed = added_up(planned)

    def refuse_overdraft(
        self, step: int, so_far: RdpAccountant, event: Event, count: int = 1
    ) -> None:
        """Raise BudgetExceeded if ``event`` on top of what was composed would pass the budget."""
        after = added_up([*so_far.events, (event, count)])
        if are_among(after, self._allowed):
            return
        bound = so_far.copy().compose(event, count).epsilon(self.delta, search=False)
        if bound.upper <= self.epsilon:
            return
        reached = float("inf")
        for ahead in _AHEAD:
            allowed = {**after, event: after[event] + ahead - 1}
            reached = cost(allowed.items(), self.delta)
            if reached <= self.epsilon:
                self._allowed = allowed
                return
        raise BudgetExceeded(
            f"step {step} would reach ε = {round_up(reached)} > {self.epsilon:g} "
            f"(δ = {self.delta!r}); take fewer epochs, add noise or raise epsilon"
        )
