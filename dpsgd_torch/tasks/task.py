"""What a task is: data, model, loss and metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Pair = tuple[torch.Tensor, torch.Tensor]
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything a run needs that privacy does not depend on.

    ``train`` and ``test`` are inputs and targets, in memory; ``make_model`` draws the initial
    weights from the generator it is given; ``metrics`` map a name to a score per example.
    """

    train: Pair
    test: Pair
    make_model: Callable[[torch.Generator], nn.Module]
    loss: Score
    metrics: dict[str, Score]


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest output is the target's, else 0.

    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor([1., 0.])
    """
    return (outputs.argmax(dim=1) == targets).float()


def glorot_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Glorot-uniform weights [Glorot, Bengio 2010, Eq. 16] and zero biases, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
