"""What Lightning iterates in place of a train loader: one item for each private step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, TensorDataset

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.examples import Targets, joined
from dpsgd_torch.data.loaders import refuse_odd_loader, rows_of_loader
from dpsgd_torch.data.trees import Tree
from dpsgd_torch.errors import DataError


@dataclass(frozen=True)
class StepToTake:
    """What hooks get as their ``batch``: the step, counted from 0, whose rows are drawn in it."""

    step: int


class StepLoader:
    """One ``StepToTake`` for each step that is left of an epoch.

    Args:
        ends: the step at which each epoch ends.
        done: how many steps were taken.
        begin: called with the steps of an epoch as it begins.
        waits: whether a step is there to take; where none is, the epoch ends.
    """

    def __init__(
        self,
        ends: list[int],
        done: Callable[[], int],
        *,
        begin: Callable[[int], None],
        waits: Callable[[], bool],
    ) -> None:
        self._ends, self._done, self._begin, self._waits = ends, done, begin, waits
        self._begun, self._at = False, 0

    @property
    def epochs(self) -> int:
        """How many epochs are behind."""
        return sum(end <= self._done() for end in self._ends)

    def __len__(self) -> int:
        """Steps of the epoch that is at hand; of the longest, the first, where none is."""
        if not self._begun or self._at >= self._ends[-1]:
            return self._ends[0]
        return next(end for end in self._ends if end > self._at) - self._at

    def __iter__(self) -> Iterator[StepToTake]:
        self._at, self._begun = self._done(), True
        self._begin(len(self))
        return self._steps(len(self))

    def _steps(self, count: int) -> Iterator[StepToTake]:
        for _ in range(count):
            if not self._waits():
                return
            yield StepToTake(self._done())


def rows_and_batches(loader: Any, targets: Targets) -> tuple[Any, Callable[[Tree, Tree], Any]]:
    """The rows a loader holds, as data, and how inputs and targets of some make a batch of its.

    Raises:
        DataError: it is no DataLoader over a map-style dataset, or its sampler would be lost.
    """
    if not isinstance(loader, DataLoader):
        raise DataError(
            f"train_dataloaders = {type(loader).__name__}: must be one DataLoader; its dataset and "
            "collate_fn are taken, and Poisson sampling draws from them"
        )
    refuse_odd_loader(loader, "train_dataloaders")
    dataset: Any = loader.dataset
    pair = type(dataset) is TensorDataset and len(dataset.tensors) == 2
    rows: tuple[Any, ...] | Data = (
        tuple(dataset.tensors) if pair else rows_of_loader(loader, targets)
    )
    one = loader.collate_fn([dataset[0]])
    return rows, lambda inputs, predicted: joined(one, inputs, predicted, targets)
