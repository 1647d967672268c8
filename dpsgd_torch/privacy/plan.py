"""The hinge: one object that the loop asks what to do and the ledger asks what it costs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from accountant import Event, Ledger, UnsupportedEvent, count_runs
from accountant.errors import check, check_delta
from accountant.risk.limit import RiskLimit
from dpsgd_torch.clipping.base import Clipping
from dpsgd_torch.clipping.flat import FLAT
from dpsgd_torch.noise.base import Noise, StepPlan
from dpsgd_torch.noise.blocks import BlockGaussian
from dpsgd_torch.noise.independent import INDEPENDENT, IndependentGaussian
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Constant, Schedule

Sampling = PoissonSampler  # its name before there were other samplers


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """Everything about a run that bears on ε: public, declared, fixed before the first step.

    * Sampler: as ``sampling`` says.
    * Clip: the mean of each microbatch, to ``clip_norm`` at that step, as ``clipping`` says.
    * Noise: as ``noise`` says, of noise multiplier × clip norm, on the sum over microbatches.
    * Average: the noisy sum over the declared number of microbatches.
    * Beside the steps, the same budget pays ``also``, and the steps themselves ``runs`` times (the
      folds of a cross-validation).

    >>> from dpsgd_torch.schedules import Constant
    >>> sampling = Sampling(dataset_size=60000, batch_size=50, microbatch_size=5, steps=12000)
    >>> plan = PrivacyPlan(sampling=sampling, clip_norm=Constant(1.0),
    ...                    noise_multiplier=Constant(1.2), delta=1e-5)
    >>> plan.event(0).event.noise_multiplier, plan.sampling.microbatches
    (0.6, 10)
    """

    sampling: Sampler
    clip_norm: Schedule
    noise_multiplier: Schedule
    delta: float
    budget: float | None = None
    also: tuple[tuple[Event, int], ...] = ()
    runs: int = 1
    noise: Noise = INDEPENDENT
    limit: RiskLimit | None = None
    clipping: Clipping = FLAT

    def __post_init__(self) -> None:
        check_delta(self.delta)
        self.noise.check(self.sampling)
        object.__setattr__(self, "noise", self.noise.bound(self.sampling))
        if not isinstance(self.noise_multiplier, Constant):
            self.sampling.check_noise(self.noise_multiplier.at)
        self.clipping.check(
            scheduled=not isinstance(self.clip_norm, Constant),
            secure=self.noise.secure,
            independent=isinstance(self.noise, IndependentGaussian | BlockGaussian),
        )
        for event, _ in self.also:
            if event.relation is not self.sampling.relation:
                raise UnsupportedEvent(
                    f"event {event!r}: is stated for {event.relation.value}, the steps for "
                    f"{self.sampling.relation.value}, and the same budget cannot pay both; state "
                    "it for the sampler's relation"
                )
        for name in ("clip_norm", "noise_multiplier"):
            schedule: Schedule = getattr(self, name)
            varies = not isinstance(schedule, Constant)
            steps = range(self.sampling.steps if varies else 1)
            least = min(steps, key=schedule.at)
            check(
                schedule.at(least) > 0,
                f"{name} at step {least}",
                schedule.at(least),
                "must be > 0 at every step",
                "let its schedule end above 0",
            )
            check(
                not (varies and self.paid_together) or self.sampling.checks_noise,
                name,
                schedule.to_json(),
                "must be constant where several steps are paid for at once",
                "drop its schedule",
            )

    def step(self, step: int) -> StepPlan:
        """What the loop does at ``step``."""
        z, vectors = self.noise_multiplier.at(step), self.sampling.microbatches
        noise = self.clipping.noise_of_sums(z, vectors)
        count = self.clipping.noise_of_count(z, vectors)
        return StepPlan(self.clip_norm.at(step), noise, step, count)

    def event(self, step: int, first: int = 0) -> Event:
        """What ``step`` costs, in an attempt that began at ``first``."""
        noise_multiplier = self.noise_multiplier.at(step)
        return self.noise.charges(step, noise_multiplier, self.sampling, first)

    @property
    def paid_together(self) -> bool:
        """Whether some steps are paid for by one before them, so that an attempt pays anew."""
        last = self.sampling.steps - 1  # which may be the first of its round
        few = {min(1, last), max(last - 1, 0), last}
        return any(self.event(at, first=at) != self.event(at) for at in few)

    def events(self) -> list[tuple[Event, int]]:
        """What everything costs that the budget pays, equal neighbours counted together."""
        return [*self.also, *self.step_events()]

    def step_events(self) -> list[tuple[Event, int]]:
        """What the steps of all runs cost."""
        steps = count_runs(map(self.event, range(self.sampling.steps)))
        if self.paid_together:
            steps = list(_added_up(steps).items())  # what is paid at once has no neighbour like it
        return [(event, count * self.runs) for event, count in steps]

    def open_ledger(self, path: Path | None, *, resumed: bool) -> Ledger:
        """The ledger this plan is charged to; all that is planned is priced once."""
        return Ledger(
            path,
            delta=self.delta,
            budget=self.budget,
            planned=self.events() if self.budget or self.limit else None,
            limit=self.limit,
            relation=self.sampling.relation,
            resumed=resumed,
        )

    def calibrated(self, epsilon: float) -> PrivacyPlan:
        """This plan with its noise scaled, at every step alike, to cost ``epsilon``."""
        from accountant import calibrate_noise  # with numpy and scipy: after --help

        return self._scaled(
            calibrate_noise(epsilon, self.delta, lambda factor: self._scaled(factor).events())
        )

    def within(self, limit: RiskLimit) -> PrivacyPlan:
        """This plan with its noise scaled so that no attacker passes ``limit``."""
        return self._scaled(limit.calibrate(lambda factor: self._scaled(factor).events()))

    def _scaled(self, factor: float) -> PrivacyPlan:
        return dataclasses.replace(self, noise_multiplier=self.noise_multiplier.scaled(factor))


def _added_up(events: list[tuple[Event, int]]) -> Counter[Event]:
    total: Counter[Event] = Counter()
    for event, count in events:
        total[event] += count
    return total
