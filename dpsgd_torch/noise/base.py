"""Noise interface: one object adds the noise, prices it and describes itself in words."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from accountant import Event
from dpsgd_torch.samplers.base import Sampler

State = dict[str, torch.Tensor]  # what a kind carries from step to step


@dataclass(frozen=True)
class StepPlan:
    """What one step does: clip to ``clip_norm``, add noise of that many times as much.

    ``count_noise``: the deviation of the noise on a count that the clip tells; 0 where it does not.
    """

    clip_norm: float
    noise_multiplier: float
    step: int = 0
    count_noise: float = 0.0


@dataclass(frozen=True)
class Release:
    """One step's sum about to be released: over ``vectors`` clipped vectors, to be divided."""

    plan: StepPlan
    vectors: int
    divisor: int
    rng: np.random.Generator
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Noise(abc.ABC):
    """What stands between the sums of clipped vectors and what is released.

    * A kind is frozen data; what changes from step to step is ``state``, which checkpoints keep.
    * A step repeated after a crash gets the same ``rng`` and the same ``state``: it must give the
      same release bit for bit.
    * An attempt that cannot repeat its steps begins with a new ``state``, draws anew and pays anew.

    A kind states its own law as bullets here.
    """

    name: ClassVar[str]
    not_covered: ClassVar[str]  # what of its drawing no ε covers, for statement.txt
    secure: ClassVar[bool] = False  # exact, from a cryptographic generator

    @abc.abstractmethod
    def check(self, sampler: Sampler) -> None:
        """Refuse a sampler under which this noise has no analysis, before anything is charged."""

    def bound(self, sampler: Sampler) -> Noise:
        """This noise for a run of so many steps, where what is drawn hangs on them."""
        del sampler
        return self

    @abc.abstractmethod
    def charges(
        self, step: int, noise_multiplier: float, sampler: Sampler, first: int = 0
    ) -> Event:
        """What ``step`` is charged as, in an attempt that began at ``first``.

        A mechanism that is paid for as a whole charges all of it at ``first``, by the same event
        whichever step that is, and ``NoCost()`` from there on.
        """

    @abc.abstractmethod
    def add(
        self, sums: Sequence[torch.Tensor], params: Sequence[torch.nn.Parameter], release: Release
    ) -> None:
        """Leave (sum + noise) / divisor in each parameter's ``grad``; the sums may be written over.

        Raises:
            GuaranteeBroken: what was added is not what was planned; no ``grad`` may be used then.
        """

    @abc.abstractmethod
    def describe(self, first: StepPlan, last: StepPlan) -> str:
        """The noise of the first step and of the last, as a clause: "… was added"."""

    def computed(self) -> dict[str, Any]:
        """What ``bound`` computed, where another machine may compute another last digit of it.

        A run keeps it: all steps of an attempt must be of one mechanism.
        """
        return {}

    def as_computed(self, kept: Mapping[str, Any]) -> Noise:
        """This noise with what the run that is resumed has computed."""
        del kept
        return self

    def deviation(self, plan: StepPlan, state: State | None = None) -> float | None:
        """Standard deviation of that step's noise on each coordinate of the sum.

        ``state``: before the step; None stands for that of a first step.

        None where it is not the same number for all of them, or no number of the plan's: what
        corrects for it (``optim.AdamBC``) is then refused.
        """
        del plan, state
        return None

    def state(self, params: Sequence[torch.nn.Parameter]) -> State:
        """What the first step of an attempt starts from."""
        del params
        return {}

    def to_json(self) -> dict[str, Any]:
        """What a resumed run must share with the run it resumes."""
        return {"noise": self.name, **dataclasses.asdict(self)}
