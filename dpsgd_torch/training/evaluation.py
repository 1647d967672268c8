"""Evaluation in batches: a model's outputs without gradients, in evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.trees import Tree, call
from dpsgd_torch.training.modes import evaluating

T = TypeVar("T")


def in_batches(
    model: nn.Module, batches: Iterable[tuple[Tree, Any]], of: Callable[[Any, Any], T]
) -> list[T]:
    """``of(outputs, targets)`` of each batch (inputs, targets); modes are given back."""
    with evaluating(model), torch.no_grad(), contextlib.ExitStack() as ending:
        if isinstance(batches, Generator):
            ending.enter_context(contextlib.closing(batches))  # with whoever loads them
        return [of(call(model, inputs), targets) for inputs, targets in batches]


def evaluate(model: nn.Module, scores: dict[str, Any], data: Data | None) -> dict[str, float]:
    """Mean over ``data`` of each score, a function (outputs, targets) → one value per example."""
    if data is None:
        return {}

    def sums(outputs: Any, targets: Tree) -> dict[str, float]:
        return {
            name: float(score(outputs, targets).double().sum()) for name, score in scores.items()
        }

    totals = dict.fromkeys(scores, 0.0)
    for part in in_batches(model, data.batches(), sums):
        for name in scores:
            totals[name] += part[name]
    return {name: total / len(data) for name, total in totals.items()}
