"""Evaluation in batches: a model's outputs without gradients, in evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from dpsgd_torch.data.base import Batch, Data, Wanted, rows_at_once
from dpsgd_torch.data.trees import Tree, call
from dpsgd_torch.training.metrics import Metrics
from dpsgd_torch.training.modes import evaluating
from dpsgd_torch.training.over_all import OverAll
from dpsgd_torch.training.world import ALONE, World

T = TypeVar("T")


def in_batches(
    model: nn.Module, batches: Iterable[tuple[Tree, Any]], of: Callable[[Any, Any], T]
) -> list[T]:
    """``of(outputs, targets)`` of each batch (inputs, targets); modes are given back."""
    with evaluating(model), torch.no_grad(), contextlib.ExitStack() as ending:
        if isinstance(batches, Generator):
            ending.enter_context(contextlib.closing(batches))  # with whoever loads them
        return [of(call(model, inputs), targets) for inputs, targets in batches]


def own_batches(data: Data, world: World) -> Iterable[Batch]:
    """This rank's part of all rows, a contiguous one, in batches; those of ranks are all rows."""
    if world.is_alone:
        return data.batches()
    start, end = (len(data) * rank // world.size for rank in (world.rank, world.rank + 1))
    size = rows_at_once(data.schema)
    starts = range(start, end, size)
    return data.ahead(Wanted(np.arange(row, min(row + size, end))) for row in starts)


def evaluate(
    model: nn.Module, scores: Metrics, data: Data | None, world: World = ALONE
) -> dict[str, float]:
    """The loss and each metric over ``data``, by name.

    Means over examples are taken by all ranks, each over its part of the rows; where there is a
    metric of another kind, rank 0 passes over all of them.

    Raises:
        ModelError: a metric fails that has never been computed.
    """
    if data is None:
        return {}
    scores.decide(model, data)
    if (scores.objects or scores.whole) and not world.is_alone:
        return world.first(lambda: evaluate(model, scores, data), "the test set")
    totals, over_all = dict.fromkeys(scores.per_example, 0.0), OverAll(scores, len(data))

    def add(outputs: Any, targets: Tree) -> None:
        for name, score in scores.per_example.items():
            totals[name] += float(score(outputs, targets).double().sum())
        over_all.add(outputs, targets)

    in_batches(model, own_batches(data, world), add)
    world.agree("the test set", number_of_test_rows=len(data))
    parts = world.exchange("scores of the test set", totals)
    found = {name: {name: sum(part[name] for part in parts) / len(data)} for name in totals}
    found |= over_all.results()
    return {each: value for name in scores.order for each, value in found[name].items()}
