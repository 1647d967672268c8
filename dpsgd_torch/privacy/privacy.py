"""What the user asks of privacy: a budget, a noise, or both."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from accountant import Event, dpsgd_steps
from accountant.errors import check, check_delta
from accountant.risk.limit import RiskLimit
from accountant.statement import weak_delta
from dpsgd_torch.clipping.base import Clipping
from dpsgd_torch.clipping.flat import FLAT
from dpsgd_torch.clipping.kinds import clipping_of
from dpsgd_torch.noise.base import Noise
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.registry import sampler_kind
from dpsgd_torch.schedules import Schedule, as_schedule


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The promise a run is to keep.

    With ``epsilon`` alone the noise is calibrated so that the planned run costs just that. With
    ``noise_multiplier`` alone the run costs what it costs. With both the noise stays, and the
    run stops before the step that would pass ``epsilon``.

    Args:
        epsilon: ε not to pass, or None.
        delta: δ; must be below 1 / n to mean anything.
        clip_norm: L2 norm that each example's gradient (each microbatch's mean gradient) is
            clipped to; a number or a schedule.
        noise_multiplier: standard deviation of the noise over the clip norm; a number or a
            schedule. With ``epsilon`` alone, leave it None.
        noise_shape: with ``epsilon`` alone, the schedule that calibration scales.
        microbatch_size: examples averaged before each clip. Above 1 the sensitivity is twice the
            clip and the cost is charged accordingly.
        dataset_size: n as declared in public; None takes the number of training records, which
            the statement then treats as public.
        unit: whom the promise is made to: "record", or what the ids in ``Trainer(units=…)`` name;
            ``dataset_size`` then counts these.
        also: other releases that the same budget pays, each with its count: statistics, selection,
            validation. They are charged by whoever makes them, to parts of the same ledger.
        noise: the kind of noise; independent in each step by default.
        advantage: in place of epsilon, any attacker's TPR − FPR that is not to be passed.
        tpr_at_fpr: the same for true positives at a rate of false ones, as (0.02, 0.001).
        runs: how many runs like this one share the budget, as the folds of a cross-validation do.
        clipping: how a gradient is cut to the clip norm, a kind of ``dpsgd_torch.clipping`` or its
            name as of ``--clipping``; flat by default.

    Raises:
        InvalidValue: a value outside its domain.

    >>> Privacy(epsilon=3.0, delta=1e-5, clip_norm=1.0).noise_multiplier is None
    True
    """

    epsilon: float | None = None
    delta: float
    clip_norm: float | Schedule
    noise_multiplier: float | Schedule | None = None
    noise_shape: float | Schedule = 1.0
    microbatch_size: int = 1
    dataset_size: int | None = None
    unit: str = "record"
    also: tuple[tuple[Event, int], ...] = ()
    runs: int = 1
    noise: Noise = INDEPENDENT
    advantage: float | None = None
    tpr_at_fpr: tuple[float, float] | None = None
    clipping: Clipping | str = FLAT

    def __post_init__(self) -> None:
        if isinstance(self.clipping, str):
            object.__setattr__(self, "clipping", clipping_of(self.clipping))
        check_delta(self.delta)
        noise, epsilon = self.noise_multiplier, self.epsilon
        if epsilon is not None:
            check(0 < epsilon < math.inf, "epsilon", epsilon, "must be a number > 0")
        for name, value in (("clip_norm", self.clip_norm), ("noise_multiplier", noise)):
            if isinstance(value, int | float):
                check(0 < value < math.inf, name, value, "must be a number > 0")
        check(
            noise is not None or epsilon is not None or self.limit is not None,
            "privacy",
            self,
            "names neither epsilon nor noise_multiplier",
            "give a budget, a noise or both",
        )
        check(
            self.limit is None or (noise is None and epsilon is None),
            "privacy",
            self.limit,
            "stands in place of epsilon and noise_multiplier",
            "drop these, or the risk",
        )

    @property
    def limit(self) -> RiskLimit | None:
        """The risk that is not to be passed, where one stands in place of ε."""
        if self.advantage is None and self.tpr_at_fpr is None:
            return None
        return RiskLimit(advantage=self.advantage, tpr_at_fpr=self.tpr_at_fpr)

    def to_json(self) -> dict[str, Any]:
        """What was asked, with schedules written out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        written = {
            name: value.to_json() if hasattr(value, "to_json") else value
            for name, value in values.items()
        }
        if self.noise == INDEPENDENT:
            del written["noise"]  # as when there was no other
        if self.clipping == FLAT:
            del written["clipping"]  # likewise
        for name in ("advantage", "tpr_at_fpr"):
            if written[name] is None:
                del written[name]
        also = [{**event.to_json(), "count": count} for event, count in self.also]
        return {**written, "also": also}

    def plan(self, sampling: Sampler, also: tuple[tuple[Event, int], ...] = ()) -> PrivacyPlan:
        """The plan for a run with this sampling, its noise calibrated where it must be.

        ``also`` is what each of the runs releases besides its steps.
        """
        if weak := weak_delta(self.delta, sampling.dataset_size):
            _say(weak)
        return _plan(self, sampling, also)


@lru_cache  # a warning is said once: Python's own memory of it ends where filters change
def _say(weak: str) -> None:
    warnings.warn(weak, stacklevel=2)


@lru_cache(maxsize=16)  # the folds of a run share theirs
def _plan(privacy: Privacy, sampling: Sampler, also: tuple[tuple[Event, int], ...]) -> PrivacyPlan:
    runs = privacy.runs
    plan = PrivacyPlan(
        sampling=sampling,
        clip_norm=as_schedule(privacy.clip_norm),
        noise_multiplier=as_schedule(privacy.noise_multiplier or privacy.noise_shape),
        delta=privacy.delta,
        budget=privacy.epsilon,
        also=(*privacy.also, *((event, count * runs) for event, count in also)),
        runs=runs,
        noise=privacy.noise,
        limit=privacy.limit,
        clipping=clipping_of(clip) if isinstance(clip := privacy.clipping, str) else clip,
    )
    if privacy.limit is not None:
        return plan.within(privacy.limit)
    if privacy.noise_multiplier is None and privacy.epsilon is not None:
        return plan.calibrated(privacy.epsilon)
    return plan


def declared_sampler(
    kind: str | Callable[..., Sampler],
    privacy: Privacy | None,
    *,
    dataset_size: int,
    batch_size: int,
    epochs: float,
    rows_per_unit: int | None,
) -> Sampler:
    """The sampler of a run, from the numbers that were declared for it.

    >>> declared_sampler("poisson", None, dataset_size=100, batch_size=20, epochs=3,
    ...                  rows_per_unit=None).steps
    15
    """
    made = sampler_kind(kind) if isinstance(kind, str) else kind
    return made(
        dataset_size=dataset_size,
        batch_size=batch_size,
        microbatch_size=privacy.microbatch_size if privacy else 1,
        steps=dpsgd_steps(dataset_size=dataset_size, batch_size=batch_size, epochs=epochs),
        unit=privacy.unit if privacy else "record",
        rows_per_unit=rows_per_unit,
    )
