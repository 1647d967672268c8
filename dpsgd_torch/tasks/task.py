"""What a task is: data, model, loss and metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.data.trees import Tree, mapped
from dpsgd_torch.data.views import Augment

Pair = tuple[Tree, torch.Tensor]
Score = Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns that mean something each, with the range that is declared of each.

    ``make_model`` takes a generator, the number of inputs, and (labels,) frequencies to start from.
    """

    columns: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    make_model: Callable[[torch.Generator, int, torch.Tensor | None], nn.Module]


@dataclass(frozen=True)
class Predictions:
    """Rows to predict, and how to write the (rows, labels) probabilities to a file."""

    inputs: torch.Tensor
    write: Callable[[Path, NDArray[np.float64]], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything a run needs that privacy does not depend on.

    ``train`` and ``test`` are inputs and targets, in memory: a tensor, or a tuple, list or dict of
    tensors, with which the model is called. ``make_model`` draws the initial weights from the
    generator it is given; ``metrics`` map a name to a score per example.
    ``labels``, ``input_range`` and ``output`` ("logits" or "probabilities") say what a model's
    numbers mean to whoever runs it elsewhere; ``note`` is a sentence for the statement, ``prior``
    one on what the model is given beforehand. ``units`` are columns of ids, one a training row,
    whose privacy can be asked for; ``table`` is there where inputs are columns of a table,
    ``predictions`` where the task asks for a file of them; ``augment`` draws views of inputs.
    """

    train: Pair
    test: Pair | None
    make_model: Callable[[torch.Generator], nn.Module]
    loss: Score
    metrics: dict[str, Score]
    labels: tuple[str, ...]
    input_range: tuple[float, float] = (0.0, 1.0)
    output: str = "logits"
    synthetic: bool = False
    note: str = ""
    prior: str = ""
    validation: Pair | None = None
    units: Mapping[str, torch.Tensor] = field(default_factory=dict)
    table: Table | None = None
    predictions: Predictions | None = None
    augment: Augment | None = None

    def to_json(self) -> dict[str, Any]:
        """What task.json says: all public."""
        return {
            "labels": list(self.labels),
            "input_shape": mapped(lambda tensor: list(tensor.shape[1:]), self.train[0]),
            "input_range": list(self.input_range),
            "output": self.output,
            "synthetic": self.synthetic,
        }


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
