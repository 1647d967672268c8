"""Metrics over all rows of an evaluation: objects updated by batches, functions of the whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from dpsgd_torch.data.trees import Tree, first, length
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.training.metrics import Metrics


class OverAll:
    """One evaluation's metrics that are no mean over examples.

    One that fails ends the evaluation where it was never computed before; later it is nan.
    """

    def __init__(self, scores: Metrics, rows: int) -> None:
        self._scores, self._rows = scores, rows
        self._gathered, self._failed = Gathered(), dict[str, Exception]()
        for name, metric in scores.objects.items():
            _by_itself(metric)
            self._tried(name, metric.reset)

    def add(self, outputs: Any, targets: Tree) -> None:
        for name, metric in self._scores.objects.items():
            self._tried(name, partial(_update, metric, outputs, targets))
        if self._scores.whole:
            self._gathered.add(outputs, targets)

    def results(self) -> dict[str, dict[str, float]]:
        """Each metric's numbers, by name."""
        calls: dict[str, Callable[[], Any]] = {
            name: metric.compute for name, metric in self._scores.objects.items()
        }
        for name, function in self._scores.whole.items():
            calls[name] = partial(self._gathered.handed_to, function)
        found = {name: self._result(name, work) for name, work in calls.items()}
        for name, metric in self._scores.objects.items():
            self._tried(name, metric.reset)  # some hold all outputs
        return found

    def _result(self, name: str, work: Callable[[], Any]) -> dict[str, float]:
        told = self._tried(name, lambda: self._scores.told(name, work(), self._rows))
        if name in self._failed:
            return self._scores.unknown(name, self._failed[name])
        return dict(told)

    def _tried(self, name: str, work: Callable[[], Any]) -> Any:
        if name in self._failed:
            return None
        try:
            with blamed(f"metric {name} over {self._rows} test rows"):
                return work()
        except ModelError as error:
            if name not in self._scores.names:
                raise
            self._failed[name] = error
            return None


class Gathered:
    """Outputs and targets of all batches, on the CPU.

    Of several outputs, tensors without a row for each example (a cache, a state) are None.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Any, Tree]] = []
        self._all: tuple[Any, Tree] | None = None

    def add(self, outputs: Any, targets: Tree) -> None:
        count = length(targets)

        def row_wise(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf if isinstance(leaf, str | int | float) else None
            return leaf.detach().cpu() if leaf.shape[:1] == (count,) else None

        self._parts.append((tree_map(row_wise, outputs), tree_map(row_wise, targets)))

    def handed_to(self, function: Callable[[Any, Tree], Any]) -> Any:
        """``function(outputs, targets)`` of all rows, which it must leave as they are."""
        if self._all is None:
            self._all, self._parts = tree_map(_joined, *self._parts), []
        held = [leaf for leaf in tree_leaves(self._all) if isinstance(leaf, torch.Tensor)]
        before = [leaf._version for leaf in held]
        result = function(*self._all)
        if before != [leaf._version for leaf in held]:
            raise ModelError(
                "writes to the outputs or targets it is given, which other metrics take as well; "
                "work on a copy"
            )
        return result


def _by_itself(metric: Any) -> None:
    """Have a torchmetrics object compute of what it was given: it would wait for other ranks."""
    for part in metric.modules() if isinstance(metric, torch.nn.Module) else ():
        if hasattr(part, "distributed_available_fn"):
            vars(part)["distributed_available_fn"] = _never


def _never() -> bool:
    return False


def _joined(*parts: Any) -> Any:
    if not all(isinstance(part, torch.Tensor) for part in parts):
        return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = " and ".join(sorted({str(tuple(part.shape[1:])) for part in parts}))
        raise ModelError(
            f"rows of outputs or targets have shapes {shapes} in different batches, so they cannot "
            "be laid together; return one value per example, or take an object with update"
        )
    return torch.cat(parts)


def _update(metric: Any, outputs: Any, targets: Tree) -> None:
    if hasattr(metric, "to"):
        metric.to(first(targets).device)
    metric.update(outputs, targets)
