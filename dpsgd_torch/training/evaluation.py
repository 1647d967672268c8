"""Evaluation in batches: a model's outputs without gradients, in evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.trees import Tree, call
from dpsgd_torch.training.metrics import Metrics
from dpsgd_torch.training.modes import evaluating
from dpsgd_torch.training.over_all import OverAll

T = TypeVar("T")


def in_batches(
    model: nn.Module, batches: Iterable[tuple[Tree, Any]], of: Callable[[Any, Any], T]
) -> list[T]:
    """``of(outputs, targets)`` of each batch (inputs, targets); modes are given back."""
    with evaluating(model), torch.no_grad(), contextlib.ExitStack() as ending:
        if isinstance(batches, Generator):
            ending.enter_context(contextlib.closing(batches))  # with whoever loads them
        return [of(call(model, inputs), targets) for inputs, targets in batches]


def evaluate(model: nn.Module, scores: Metrics, data: Data | None) -> dict[str, float]:
    """The loss and each metric over ``data``, by name.

    Raises:
        ModelError: a metric fails that has never been computed.
    """
    if data is None:
        return {}
    scores.decide(model, data)
    totals, over_all = dict.fromkeys(scores.per_example, 0.0), OverAll(scores, len(data))

    def add(outputs: Any, targets: Tree) -> None:
        for name, score in scores.per_example.items():
            totals[name] += float(score(outputs, targets).double().sum())
        over_all.add(outputs, targets)

    in_batches(model, data.batches(), add)
    found = {name: {name: total / len(data)} for name, total in totals.items()}
    found |= over_all.results()
    return {each: value for name in scores.order for each, value in found[name].items()}
