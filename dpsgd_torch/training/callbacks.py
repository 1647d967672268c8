"""Callbacks: told of a run's beginning, of each step and epoch, and of its end."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from accountant import PrivacyError
from accountant.errors import check
from dpsgd_torch.errors import RunError, told
from dpsgd_torch.training.history import EpochRecord
from dpsgd_torch.training.loop import Progress


class Callback:
    """Base class: override what you want to be told of; ``trainer`` is the ``Trainer``.

    * What is handed over is covered by ε: how far the run is, ε, the learning rates, what the
      released weights score on test data. What else a callback reads off the trainer (its data,
      ``history.private``) and lets out is not.
    * It is told after a step is charged, settled and, where that was due, kept. Where it raises,
      the run ends there: ``fit()`` again goes on with the next step, and in another process
      ``resume()`` does, from the last checkpoint.
    * It may change nothing that is trained: weights that it writes to end the run.

    >>> class Printing(Callback):
    ...     def on_epoch(self, trainer, record):
    ...         print(f"epoch {record.epoch} after step {record.step}")
    """

    def on_begin(self, trainer: Any) -> None:
        """Before the first step of ``fit`` or ``run``; ``trainer.done`` steps lie behind it."""

    def on_step(self, trainer: Any, progress: Progress) -> None:
        """After each step; ``progress.epsilon`` may be of some steps before."""

    def on_epoch(self, trainer: Any, record: EpochRecord) -> None:
        """After the last step of an epoch, with ε then and the test metrics."""

    def on_end(self, trainer: Any) -> None:
        """After the last step, and also where the run ends before: stopped, left or failed."""


def callbacks_in(given: Iterable[Callback]) -> list[Callback]:
    """Those a trainer was given.

    Raises:
        InvalidValue: one is something else.
    """
    callbacks = list(given)
    for each in callbacks:
        check(
            isinstance(each, Callback),
            "callbacks",
            each,
            "must be instances of dpsgd_torch.training.callbacks.Callback; subclass it",
        )
    return callbacks


Run = Callable[[Any], Iterator[Progress]]


def telling(run: Run) -> Run:
    """``Trainer.run``, that also tells the trainer's callbacks."""

    @functools.wraps(run)
    def telling_run(trainer: Any) -> Iterator[Progress]:
        world = trainer.state.world
        with world.each_by_itself(), world.stopping_together():
            yield from _telling(trainer, run)

    return telling_run


def _telling(trainer: Any, run: Run) -> Iterator[Progress]:
    begun: list[Callback] = []
    try:
        for each in trainer.callbacks:
            begun.append(each)
            _tell(each, "on_begin", trainer)
        taken: Any = run(trainer)  # a generator, to be closed when this one is
        with contextlib.closing(taken) as steps:
            for progress in steps:
                for each in trainer.callbacks:
                    _tell(each, "on_step", trainer, progress)
                    if progress.record:
                        _tell(each, "on_epoch", trainer, progress.record)
                yield progress
    finally:
        with contextlib.ExitStack() as all_of_them:
            for each in reversed(begun):
                all_of_them.callback(_tell, each, "on_end", trainer)


def _tell(callback: Callback, what: str, trainer: Any, *more: Any) -> None:
    try:
        getattr(callback, what)(trainer, *more)
    except PrivacyError:
        raise
    except Exception as error:  # whatever the user's code raises
        kept = "; fit() goes on with the next step, resume() from the last checkpoint"
        raise RunError(
            f"callback {type(callback).__name__}: {what} failed after step {trainer.done} "
            f"({told(error)}){kept if trainer.done < trainer.sampling.steps else ''}"
        ).with_traceback(error.__traceback__) from error
