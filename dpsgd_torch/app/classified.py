"""How a run's models class the public test rows: confusion matrix and calibration, as counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.data.base import Batch, Data
from dpsgd_torch.data.trees import mapped
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.evaluation import in_batches

BINS = 15  # of probability, as in Guo et al. 2017
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classified:
    """Counts over (test row, model): of no row by itself.

    ``confusion`` is (classes, classes): rows the truth, columns what was told. ``bins`` is (BINS,
    3): of the tellings whose probability lies in a bin, how many, the sum of their probabilities,
    and how many are right.
    """

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    bins: Floats
    models: int

    @property
    def rows(self) -> int:
        return int(self.confusion.sum()) // self.models

    @property
    def accuracy(self) -> float:
        """Share of right tellings: the mean of the models' accuracies."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def of_class(self) -> NDArray[np.int64]:
        """(classes,) test rows of each."""
        counts: NDArray[np.int64] = self.confusion.sum(axis=1) // self.models
        return counts

    @property
    def by_class(self) -> Floats:
        """(classes,) share of each class's rows that are told rightly; NaN where it has none."""
        found = np.full(len(self.labels), np.nan)
        rows = self.confusion.sum(axis=1)
        np.divide(np.diag(self.confusion), rows, out=found, where=rows > 0)
        return found

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1] [Guo et al. 2017, Eq. 3]: 15 bins of equal width.

        Mean distance between the probability of what was told and the share that is right, bin by
        bin, weighted by how many were told.
        """
        _, probability, right = self.bins.T
        return float(np.abs(probability - right).sum() / self.bins[:, 0].sum())


def classify(models: Sequence[nn.Module], test: Data | None, task: Task) -> Classified | str:
    """Count over all of ``models``, or say in words why there is nothing to count."""
    if test is None or task.test is None:
        return "the task has no test rows whose classes are known."
    if task.output == "values":
        return "the model tells values, not a class."
    targets = task.test[1]
    if not isinstance(targets, torch.Tensor) or targets.is_floating_point():
        return "a row has several labels here, none, one or more of which are right."
    if targets.ndim != 1 or len(task.labels) < 2:
        return "the model tells the next token, not a class."
    classes = len(task.labels)
    confusion, bins = np.zeros((classes, classes), np.int64), np.zeros((BINS, 3))

    def count(outputs: Any, truth: torch.Tensor) -> str:
        found = _probabilities(outputs, task.output)
        if found.ndim != 2 or found.shape[1] != classes:
            return f"the model does not tell one number for each of {classes} classes."
        if not found.isfinite().all():
            return "the model tells numbers that are not finite: it has diverged."
        _count(found.double().cpu().numpy(), truth.cpu().numpy(), confusion, bins)
        return ""

    for model in models:
        if why := next(filter(None, in_batches(model, _batches(test, model), count)), ""):
            return why
    return Classified(task.labels, confusion, bins, len(models))


def _batches(test: Data, model: nn.Module) -> Iterator[Batch]:
    device = next(model.parameters()).device
    for inputs, targets in test.batches():
        yield mapped(lambda part: part.to(device), inputs), targets


def _probabilities(outputs: Any, kind: str) -> torch.Tensor:
    told: torch.Tensor = getattr(outputs, "logits", outputs)
    return told if kind == "probabilities" else told.softmax(dim=1)


def _count(
    found: Floats, truth: NDArray[np.int64], confusion: NDArray[np.int64], bins: Floats
) -> None:
    """Add a batch of (rows, classes) probabilities to both counts, in place."""
    told, surest = found.argmax(axis=1), found.max(axis=1)
    np.add.at(confusion, (truth, told), 1)
    which = np.clip((surest * BINS).astype(np.int64), 0, BINS - 1)
    right = (told == truth).astype(np.float64)
    np.add.at(bins, which, np.stack([np.ones_like(surest), surest, right], axis=1))
