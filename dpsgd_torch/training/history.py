"""What is known at the end of each epoch: the part ε covers, and the part it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dpsgd_torch.training.steps import StepRecord

NORM_EDGES = [0.0, *np.logspace(-3, 3, 37).tolist(), float("inf")]


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of metrics.jsonl: from the test set, the ledger, and paid validation only."""

    epoch: int
    step: int
    epsilon: float | None
    test: dict[str, float]
    validation: float | None = None

    def to_json(self) -> dict[str, Any]:
        test = {f"test_{name}": value for name, value in self.test.items()}
        row = {"epoch": self.epoch, "step": self.step, **test, "epsilon": self.epsilon}
        return row if self.validation is None else {**row, "validation": self.validation}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> EpochRecord:
        test = {k.removeprefix("test_"): v for k, v in row.items() if k.startswith("test_")}
        return cls(
            epoch=row["epoch"],
            step=row["step"],
            epsilon=row["epsilon"],
            test=test,
            validation=row.get("validation"),
        )


@dataclass
class PrivateRecord:
    """One line of private/metrics.jsonl: training loss, batch sizes and norms, all un-noised.

    It counts the steps that this process took of the epoch.
    """

    loss_sum: float = 0.0
    examples: int = 0
    batches: int = 0
    norm_counts: np.ndarray = field(
        default_factory=lambda: np.zeros(len(NORM_EDGES) - 1, dtype=np.int64)
    )

    def add(self, record: StepRecord) -> None:
        self.loss_sum += record.loss_sum
        self.examples += record.examples
        self.batches += 1
        self.norm_counts += np.histogram(record.norms.numpy(), NORM_EDGES)[0]

    def parts(self) -> list[Any]:
        """As JSON, for ``summed``."""
        return [self.loss_sum, self.examples, self.batches, self.norm_counts.tolist()]

    def to_json(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "train_loss": self.loss_sum / max(1, self.examples),
            "examples_seen": self.examples,
            "batches": self.batches,
            "norm_counts": self.norm_counts.tolist(),
        }


def summed(parts: Sequence[list[Any]]) -> PrivateRecord:
    """The record of all ranks, which take the same batches, each its share.

    >>> both = summed([[1.5, 3, 2, [0] * 40], [2.5, 4, 2, [1] * 40]])
    >>> both.loss_sum, both.examples, both.batches
    (4.0, 7, 2)
    """
    losses, examples, batches, counts = zip(*parts, strict=True)
    norms = np.sum([np.array(each, dtype=np.int64) for each in counts], axis=0)
    return PrivateRecord(sum(losses), sum(examples), batches[0], norms)


@dataclass
class History:
    """All epochs so far."""

    epochs: list[EpochRecord] = field(default_factory=list)
    private: list[dict[str, Any]] = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        """The validation scores so far."""
        return [r.validation for r in self.epochs if r.validation is not None]

    def to_json(self) -> dict[str, Any]:
        return {"epochs": [record.to_json() for record in self.epochs], "private": self.private}

    @classmethod
    def from_json(cls, rows: dict[str, Any]) -> History:
        return cls(list(map(EpochRecord.from_json, rows["epochs"])), list(rows["private"]))


def averaged(histories: Sequence[History]) -> History:
    """The mean over runs, epoch by epoch; ε is what all of them had spent by then.

    >>> def ended(value: float) -> History:
    ...     return History([EpochRecord(epoch=1, step=9, epsilon=1.0, test={"loss": value})])
    >>> averaged([ended(0.5), ended(0.25)]).epochs[0].test
    {'loss': 0.375}
    """
    if len(histories) == 1:
        return histories[0]
    epochs = []
    for rows in zip(*(history.epochs for history in histories), strict=False):
        spent = [row.epsilon for row in rows if row.epsilon is not None]
        scores = [row.validation for row in rows if row.validation is not None]
        epochs.append(
            EpochRecord(
                epoch=rows[0].epoch,
                step=rows[0].step,
                epsilon=max(spent, default=None),
                test={k: float(np.mean([row.test[k] for row in rows])) for k in rows[0].test},
                validation=float(np.mean(scores)) if scores else None,
            )
        )
    return History(epochs)
