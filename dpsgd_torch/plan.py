"""The hinge: one object that the loop asks what to do and the ledger asks what it costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from accountant import Event, PoissonSampled, calibrate_noise, count_runs, dpsgd_event
from accountant.errors import check, check_delta
from dpsgd_torch.schedules import Schedule


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
    """

    dataset_size: int
    batch_size: int
    microbatch_size: int = 1
    steps: int

    def __post_init__(self) -> None:
        check(self.steps >= 1, "steps", self.steps, "must be at least 1", "raise epochs")
        self.event(0.0)

    def to_json(self) -> dict[str, int]:
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

    def __post_init__(self) -> None:
        check_delta(self.delta)
        for step in (0, self.sampling.steps - 1):
            clip = self.clip_norm.at(step)
            check(clip > 0, "clip_norm", clip, "must be > 0")

    def step(self, step: int) -> StepPlan:
        """What the loop does at ``step``."""
        return StepPlan(self.clip_norm.at(step), self.noise_multiplier.at(step))

    def event(self, step: int) -> PoissonSampled:
        """What ``step`` costs."""
        return self.sampling.event(self.step(step).noise_multiplier)

    def events(self) -> list[tuple[Event, int]]:
        """What the whole run costs, equal neighbours counted together."""
        return count_runs(map(self.event, range(self.sampling.steps)))

    def calibrated(self, epsilon: float) -> PrivacyPlan:
        """This plan with its noise scaled, at every step alike, to cost ``epsilon``."""

        def scaled(factor: float) -> PrivacyPlan:
            noise = self.noise_multiplier.scaled(factor)
            return dataclasses.replace(self, noise_multiplier=noise)

        return scaled(calibrate_noise(epsilon, self.delta, lambda f: scaled(f).events()))
