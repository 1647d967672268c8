"""Code of the user's own that steers steps, told by what it does, for the noise alone."""

from __future__ import annotations

from typing import Any

from dpsgd_torch.training.described import described_code
from dpsgd_torch.training.optimizers import parts_of
from dpsgd_torch.training.state import RunState


def own_code(run: RunState) -> list[str]:
    """What optimizers, clip, noise, sampler, schedules, filters do that are not the library's.

    The contract knows them by name and numbers. Were two kinds of one name told alike, two runs of
    one seed would draw the same noise for the different gradients that they lead to.

    Returns:
        Nothing where all of them are the library's or torch's: their names and versions tell them.
    """
    parts: list[Any] = [*parts_of(run.optimizer), run.sampling, run.average, run.filter]
    parts += [run.steering.rates.schedule, *run.kept.things()]
    if run.plan:
        plan = run.plan
        parts += [plan.clipping, plan.noise, plan.clip_norm, plan.noise_multiplier]
    told = [described_code(each) for each in parts if each is not None]
    return [each for each in told if each]
