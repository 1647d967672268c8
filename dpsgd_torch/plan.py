"""The hinge: one object that the loop asks what to do and the ledger asks what it costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from accountant import Event, PoissonSampled, count_runs, dpsgd_event
from accountant.errors import check, check_delta
from dpsgd_torch.schedules import Constant, Schedule


@dataclass(frozen=True)
class StepPlan:
    """What one step does: clip to ``clip_norm``, add noise of that many times as much."""

    clip_norm: float
    noise_multiplier: float


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Who can be in a batch, and how a batch is cut: declared, public numbers.

    * Poisson: each of ``dataset_size`` records joins each batch independently with probability
      ``batch_size`` / ``dataset_size``, for ``steps`` batches.
    * Each record of a batch is put, independently of the others, into one of ``microbatches``
      slots; with a microbatch size of 1 each has a slot of its own.
    * Where the ``unit`` of privacy has several rows (a drug, a patient), a record above is such a
      unit with all its rows: units are counted and sampled. At most ``rows_per_unit`` of a
      unit's rows, drawn afresh from its own at each step, are averaged and clipped as one vector.
    """

    dataset_size: int
    batch_size: int
    microbatch_size: int = 1
    steps: int
    unit: str = "record"
    rows_per_unit: int | None = None

    def __post_init__(self) -> None:
        check(self.steps >= 1, "steps", self.steps, "must be at least 1", "raise epochs")
        rows = self.rows_per_unit
        check(rows is None or rows >= 1, "rows_per_unit", rows, "must be at least 1")
        check(
            rows is None or self.microbatch_size == 1,
            "microbatch_size",
            self.microbatch_size,
            "must be 1 where a unit has several rows: its rows are the microbatch",
        )
        self.event(0.0)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def rate(self) -> float:
        return self.batch_size / self.dataset_size

    @property
    def microbatches(self) -> int:
        """The declared number of clipped vectors in a batch: the divisor of the noisy sum."""
        return self.batch_size // self.microbatch_size

    def event(self, noise_multiplier: float) -> PoissonSampled:
        """What one release over such a batch is charged as."""
        return dpsgd_event(
            dataset_size=self.dataset_size,
            batch_size=self.batch_size,
            microbatch_size=self.microbatch_size,
            noise_multiplier=noise_multiplier,
        )


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """Everything about a run that bears on ε: public, declared, fixed before the first step.

    * Sampler: as ``sampling`` says.
    * Clip: the mean of each microbatch, to ``clip_norm`` at that step, in L2 norm over all
      parameters together.
    * Noise: Gaussian, of deviation noise multiplier × clip norm, on the sum over microbatches.
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

    sampling: Sampling
    clip_norm: Schedule
    noise_multiplier: Schedule
    delta: float
    budget: float | None = None
    also: tuple[tuple[Event, int], ...] = ()
    runs: int = 1

    def __post_init__(self) -> None:
        check_delta(self.delta)
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

    def step(self, step: int) -> StepPlan:
        """What the loop does at ``step``."""
        return StepPlan(self.clip_norm.at(step), self.noise_multiplier.at(step))

    def event(self, step: int) -> PoissonSampled:
        """What ``step`` costs."""
        return self.sampling.event(self.step(step).noise_multiplier)

    def events(self) -> list[tuple[Event, int]]:
        """What everything costs that the budget pays, equal neighbours counted together."""
        steps = count_runs(map(self.event, range(self.sampling.steps)))
        return [*self.also, *((event, count * self.runs) for event, count in steps)]

    def calibrated(self, epsilon: float) -> PrivacyPlan:
        """This plan with its noise scaled, at every step alike, to cost ``epsilon``."""
        from accountant import calibrate_noise  # with numpy and scipy: after --help

        def scaled(factor: float) -> PrivacyPlan:
            noise = self.noise_multiplier.scaled(factor)
            return dataclasses.replace(self, noise_multiplier=noise)

        return scaled(calibrate_noise(epsilon, self.delta, lambda f: scaled(f).events()))
