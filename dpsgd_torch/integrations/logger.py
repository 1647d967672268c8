"""Loggers: what a run tells, as scalars by step; only what ε covers unless more is asked for."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from accountant.errors import check
from dpsgd_torch.training.callbacks import Callback
from dpsgd_torch.training.history import NORM_EDGES, EpochRecord
from dpsgd_torch.training.loop import Progress

UNCOVERED = "not_covered_by_ε"
_QUANTILES = {"norm_median": 0.5, "norm_90th_percentile": 0.9}

Value = float | str


class Logger(Callback, abc.ABC):
    """Base class of loggers: learning rates by step, ε and test metrics by epoch.

    * ``epsilon`` after each epoch is what the steps so far cost; ``guarantee/epsilon``, once the
      run has ended, is what ``privacy_spent`` says, more where early stopping looked at scores.
    * ``test/…`` and ``validation`` are what metrics.jsonl holds: public, or charged.
    * With ``private``, training loss and gradient norms before the clip, by epoch, under
      ``not_covered_by_ε/``: whoever sees them sees more than ε promises.
    * Hyper-parameters are those that were declared: no seed, and no digest of the data.

    Args:
        every: steps between two learning rates told.
        private: whether to tell what ε does not cover.
    """

    def __init__(self, *, every: int = 10, private: bool = False) -> None:
        check(every >= 1, "every", every, "must be ≥ 1 step")
        self.every, self.private = every, private

    @abc.abstractmethod
    def start(self, parameters: Mapping[str, Value], done: int) -> None:
        """Begin, or go on after ``done`` steps."""

    @abc.abstractmethod
    def scalar(self, name: str, value: float, step: int) -> None:
        """One number."""

    def flush(self) -> None:
        """After an epoch: write what is held."""

    @abc.abstractmethod
    def finish(self, *, complete: bool) -> None:
        """Close what was begun."""

    def on_begin(self, trainer: Any) -> None:
        self.start(parameters(trainer), trainer.done)

    def on_step(self, trainer: Any, progress: Progress) -> None:
        if progress.step % self.every and not progress.record:
            return
        groups = trainer.optimizer.param_groups
        for number, group in enumerate(groups):
            name = "learning_rate" if len(groups) == 1 else f"learning_rate/{number}"
            self.scalar(name, float(group["lr"]), progress.step)

    def on_epoch(self, trainer: Any, record: EpochRecord) -> None:
        told: dict[str, float | None] = {
            f"test/{name}": value for name, value in record.test.items()
        }
        told["epoch"], told["epsilon"] = record.epoch, record.epsilon
        told["validation"] = record.validation
        if self.private:
            told |= _uncovered(trainer.history.private[-1])
        for name, value in told.items():
            if value is not None:
                self.scalar(named(name), value, record.step)
        self.flush()

    def on_end(self, trainer: Any) -> None:
        whole = trainer.done == trainer.sampling.steps
        complete = bool(whole or trainer.stopped or trainer.ended)
        if complete and trainer.plan and not trainer.state.charges.broken:
            spent = trainer.privacy_spent()
            self.scalar("guarantee/epsilon", spent.epsilon, trainer.done)
            self.scalar("guarantee/delta", spent.delta, trainer.done)
        self.finish(complete=complete)


def named(name: str) -> str:
    """A name that all loggers take.

    >>> named("test/top 5 @ 10 %")
    'test/top_5___10__'
    """
    return re.sub(r"[^\w\-./]", "_", name)


def parameters(trainer: Any) -> dict[str, Value]:
    """What was declared of a run, flat."""
    optimizer = trainer.optimizer
    found: dict[str, Any] = {
        "model": type(trainer.model).__name__,
        "optimizer": {
            "kind": type(optimizer).__name__,
            **{key: optimizer.param_groups[0][key] for key in optimizer.defaults},
        },
        "sampling": trainer.sampling.to_json(),
        "privacy": trainer.privacy.to_json() if trainer.privacy else "none",
        "gradients": trainer.gradients,
        "physical_batch_size": trainer.physical_batch_size,
    }
    if trainer.plan:
        first = trainer.plan.step(0)
        found |= {"noise_multiplier": first.noise_multiplier, "clip_norm": first.clip_norm}
    return dict(_flat(found))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for key, value in values.items():
        name = named(f"{prefix}{key}")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}/")
        else:
            yield name, value if isinstance(value, float | int | str) else str(value)


def _uncovered(row: Mapping[str, Any]) -> dict[str, float]:
    counts = np.cumsum(row["norm_counts"])
    told = {f"{UNCOVERED}/train_loss": float(row["train_loss"])}
    if counts[-1]:
        for name, part in _QUANTILES.items():  # to the upper edge of its bin
            place = int(np.searchsorted(counts, part * counts[-1]))
            told[f"{UNCOVERED}/{name}"] = NORM_EDGES[place + 1]
    return told
