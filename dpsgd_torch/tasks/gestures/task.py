"""Gestures recorded with an Arduino's motion sensor, and a small network to tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.errors import DataError
from dpsgd_torch.features.motion import MotionRecipe
from dpsgd_torch.tasks.augment import moved_otherwise
from dpsgd_torch.tasks.gestures.files import LIMITS, SAMPLES, Recordings, read_gestures
from dpsgd_torch.tasks.gestures.lines import AXES
from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings
from dpsgd_torch.tasks.image_features import linear_head, prior_of
from dpsgd_torch.tasks.task import Task, accuracy, glorot_

Range = tuple[float, float]

INPUTS = SAMPLES * len(AXES)
_SPLIT_SEED = 0  # public, so that every run agrees on who is private
_MADE_UP = (
    "The recordings were made up by a model of motion, not recorded: nobody's privacy is at stake "
    "and nothing is learnt of how the classifier does on real ones."
)
_RECORDED = (
    "The unit of privacy is one recording, not one person: where one person made them all, "
    "nothing here hides how that person moves. The gestures' names, from the names of the files, "
    "are published as they are."
)


def gesture_mlp(generator: torch.Generator, gestures: int, *, softmax: bool) -> nn.Module:
    """(batch, 714) → (batch, gestures): 50 and 15 units between; logits, or probabilities.

    >>> gesture_mlp(torch.Generator(), 2, softmax=True)(torch.zeros(1, 714)).sum().item()
    1.0
    """
    layers = [
        nn.Linear(INPUTS, 50),
        nn.ReLU(),
        nn.Linear(50, 15),
        nn.ReLU(),
        nn.Linear(15, gestures),
    ]
    if softmax:
        layers.append(nn.Softmax(dim=1))
    return glorot_(nn.Sequential(*layers), generator)


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of each example's outputs to the one-hot target.

    >>> squared_error(torch.tensor([[0.5, 0.5]]), torch.tensor([1]))
    tensor([0.2500])
    """
    return (outputs - _one_hot(outputs, targets)).square().mean(dim=1)


def absolute_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean absolute distance of each example's outputs to the one-hot target.

    >>> absolute_error(torch.tensor([[0.5, 0.5]]), torch.tensor([1]))
    tensor([0.5000])
    """
    return (outputs - _one_hot(outputs, targets)).abs().mean(dim=1)


def _one_hot(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)


def made_up_gesture_task(
    loss: str, rows: int, test_rows: int, seed: int, directions: int | None = None
) -> Task:
    """Two made-up gestures, so many recordings to train and to test on."""
    count = rows + test_rows
    recordings = synthetic_recordings((count // 2, count - count // 2), seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    return _task(recordings, loss, directions, (order[:rows], order[rows:]), synthetic=True)


def gesture_task(
    data_dir: Path | None, loss: str, partial: str = "refuse", directions: int | None = None
) -> Task:
    """Split 60/20/20 into training, test and validation; made-up recordings without a folder.

    Args:
        data_dir: a folder of CSV files, one a gesture.
        loss: "cross-entropy" on logits, or "mean-squared" on probabilities, as the notebook has it.
        partial: "drop" or "refuse" blocks of rows that are no whole recordings.
        directions: of motion's statistics, to give a linear head those in place of recordings.
    """
    recordings = read_gestures(data_dir, partial) if data_dir else synthetic_recordings()
    count = len(recordings.gesture)
    if count < 5:
        raise DataError(f"data_dir: has {count} recordings; needs five at least, to split them")
    order = torch.from_numpy(np.random.default_rng(_SPLIT_SEED).permutation(count))
    parts = order.tensor_split([round(0.6 * count), round(0.8 * count)])
    task = _task(recordings, loss, directions, parts, synthetic=data_dir is None)
    return replace(task, note=_RECORDED if data_dir else _MADE_UP)


def _task(
    recordings: Recordings,
    loss: str,
    directions: int | None,
    parts: Sequence[torch.Tensor],
    *,
    synthetic: bool,
) -> Task:
    """Of recordings in ``parts``: those to train on, to test on and, if any, to validate on."""
    recipe = MotionRecipe(directions=directions) if directions else None
    input_range = (-recipe.norm, recipe.norm) if recipe else input_range_of(loss)
    motion = recordings.motion
    inputs = recipe(motion) if recipe else gesture_inputs(motion, input_range)
    targets = torch.from_numpy(recordings.gesture)
    train, test, *validation = ((inputs[part], targets[part]) for part in parts)
    squared, gestures = loss == "mean-squared", len(recordings.names)
    return Task(
        train=train,
        test=test,
        validation=validation[0] if validation else None,
        make_model=lambda generator: (
            linear_head(inputs.shape[1], gestures)
            if recipe
            else gesture_mlp(generator, gestures, softmax=squared)
        ),
        loss=squared_error if squared else nn.CrossEntropyLoss(),
        metrics={"MAE": absolute_error, "accuracy": accuracy}
        if squared
        else {"accuracy": accuracy},
        labels=recordings.names,
        input_range=input_range,
        output="probabilities" if squared else "logits",
        synthetic=synthetic,
        prior=prior_of(recipe.prior, "a recording", knows_classes=False) if recipe else "",
        augment=None if recipe else moved_otherwise(SAMPLES, sum(input_range) / 2),
    )


def input_range_of(loss: str) -> Range:
    """[0, 1] as in the notebook for its loss, else [−1, 1].

    A board at rest is 0.5 all over in the notebook's scale: 714 inputs with a large mean in common,
    along which the loss is so steep that no learning rate fits both it and what differs.
    """
    return (0.0, 1.0) if loss == "mean-squared" else (-1.0, 1.0)


def gesture_inputs(motion: NDArray[np.float64], input_range: Range) -> torch.Tensor:
    """(n, 119, 6) in g and °/s → (n, 714) in the range, row by row as recorded.

    >>> gesture_inputs(np.zeros((1, 119, 6)), (0.0, 1.0))[0, :2]
    tensor([0.5000, 0.5000])
    """
    low, high = (np.float32(end) for end in input_range)
    limits = LIMITS.astype(np.float32)
    scaled = low + (high - low) * ((motion.astype(np.float32) + limits) / (2 * limits))
    return torch.from_numpy(scaled.reshape(len(motion), -1))
