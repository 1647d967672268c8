"""Losses as one number per example, so that no example weighs on another's gradient."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable

import torch
from torch import nn

from dpsgd_torch.errors import ModelError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def per_example(loss: Loss) -> Loss:
    """``loss`` with reduction taken away: (outputs, targets) → one value per example.

    A class-weighted mean divides by the weights of the whole batch, so one example would scale
    every other's gradient before the clip; values that a loss gives per element are averaged
    within their example only.

    Args:
        loss: a module with a ``reduction`` attribute, a function with a ``reduction`` argument,
            or any function that already returns one value (or one row) per example.

    >>> outputs, targets = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    >>> per_example(nn.CrossEntropyLoss())(outputs, targets)
    tensor([0.6931, 0.6931, 0.6931])
    """
    if isinstance(loss, nn.Module):
        if hasattr(loss, "reduction"):
            loss = copy.copy(loss)
            setattr(loss, "reduction", "none")  # noqa: B010 (its type says Tensor | Module)
    elif "reduction" in inspect.signature(loss).parameters:
        loss = functools.partial(loss, reduction="none")  # type: ignore[call-arg]

    def values(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        result = loss(outputs, targets)
        if result.ndim == 0 or result.shape[0] != outputs.shape[0]:
            raise ModelError(
                f"loss returned shape {tuple(result.shape)} for {outputs.shape[0]} examples: must "
                "be one value per example; return it unreduced (reduction='none')"
            )
        return result.flatten(1).mean(1) if result.ndim > 1 else result

    return values
