"""Learning rates by step: a schedule's factor over what stands in the optimizer, or hands off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from dpsgd_torch.errors import ModelError, RunError
from dpsgd_torch.schedules import Constant, Schedule
from dpsgd_torch.training.kept import is_scheduled, refuse_plateau
from dpsgd_torch.training.optimizers import parts_of

SchedulerFactory = Callable[[torch.optim.Optimizer], LRScheduler]


class Rates:
    """Each group's learning rate: base rate × factor where one is asked for.

    * Without a factor of ours nothing is written, so that a scheduler of torch's, or a rate set by
      hand, holds.
    * With one, a rate that somebody else has written is refused before the next step: which of
      the two was meant cannot be told.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: Schedule | None, *, slowing: bool
    ) -> None:
        self._optimizer = optimizer  # which makes its groups anew when it loads a checkpoint
        self.schedule = schedule or Constant(1.0)
        self._ours = schedule is not None or slowing
        self._bases, self._left = list[float](), list[float]()
        self.begin()

    def begin(self) -> None:
        """Take what stands there as the base rates."""
        self._bases = self._left = self._now()

    def left(self) -> None:
        """Take what stands there as what was left by the last step: a checkpoint was loaded."""
        self._left = self._now()

    def refuse_others(self) -> None:
        """Refuse rates that somebody else has written since.

        Raises:
            RunError: where a factor would be put over them.
        """
        if self._ours and (found := self._now()) != self._left:
            was, now = next((a, b) for a, b in zip(self._left, found, strict=True) if a != b)
            raise RunError(
                f"optimizer: lr = {now:g}: was {was:g} as rate_schedule or a plateau left it, and "
                "something else has set it; steer it by one of them: leave the scheduler out, or "
                "rate_schedule and plateau"
            )

    def set(self, step: int, factor: float) -> None:
        """Put the rates of ``step`` in place, times ``factor``; each is a plain number then.

        A tensor, which torch takes too, would come out of a checkpoint as a number, and round
        otherwise.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = float(group["lr"])
        if not self._ours:
            return
        factor = self.schedule.at(step) * factor
        for group, base in zip(self._optimizer.param_groups, self._bases, strict=True):
            group["lr"] = base * factor
        self._left = self._now()

    def rise(self, step: int, steps: int) -> bool:
        """Whether a later step has a higher rate, as far as a few places tell."""
        if any(map(is_scheduled, parts_of(self._optimizer))):
            return True
        later = range(step + 1, steps, max(1, (steps - step) // 64))
        return any(self.schedule.at(each) > self.schedule.at(step) for each in later)

    def _now(self) -> list[float]:
        return [float(group["lr"]) for group in self._optimizer.param_groups]


def made_scheduler(
    given: LRScheduler | SchedulerFactory | None,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
) -> LRScheduler | None:
    """The scheduler that was given, or made by a function of the optimizer.

    Raises:
        ModelError: it is none, follows a score, is another optimizer's, or one of two.
    """
    if given is None:
        return None
    if schedule is not None:
        raise ModelError("lr_scheduler: rate_schedule steers the rates as well; pass one of them")
    parts = parts_of(optimizer)
    made: Any = given
    if len(parts) > 1 and not isinstance(given, LRScheduler):
        raise ModelError(
            "lr_scheduler: there are several optimizers; make a scheduler over one of them, and "
            "pass that"
        )
    if not isinstance(given, LRScheduler) and callable(given):
        made = given(parts[0])
    refuse_plateau("lr_scheduler", made)
    if not isinstance(made, LRScheduler):
        raise ModelError(
            f"lr_scheduler = {type(made).__name__}: must be an LRScheduler of torch's, "
            "or a function of the optimizer that makes one"
        )
    if all(made.optimizer is not part for part in parts):
        raise ModelError(
            "lr_scheduler: is over another optimizer than the trainer's; make it from the one that "
            "is passed, or pass a function: lr_scheduler=lambda optimizer: StepLR(optimizer, 10)"
        )
    return made
