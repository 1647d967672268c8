"""Tasks by the name of their data: loaded, or only what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from dpsgd_torch.tasks.digits.task import digits_cnn, digits_task
from dpsgd_torch.tasks.drug_responses.task import response_task
from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings
from dpsgd_torch.tasks.gestures.task import (
    gesture_inputs,
    gesture_mlp,
    gesture_task,
    input_range_of,
)
from dpsgd_torch.tasks.mnist.task import mnist_cnn, mnist_task
from dpsgd_torch.tasks.strokes import stroke_images
from dpsgd_torch.tasks.task import Task

_OTHER_SEED = 20260103  # made-up inputs are not the recordings that a run was trained on


class Choice(Protocol):
    """The fields of a configuration that say which task."""

    @property
    def dataset(self) -> str: ...
    @property
    def dropout(self) -> float: ...
    @property
    def loss(self) -> str: ...
    @property
    def hidden_widths(self) -> tuple[int, ...]: ...
    @property
    def features(self) -> str: ...


def load_task(choice: Choice, data_dir: Path | None, partial: str = "refuse") -> Task:
    """The task with its data.

    Raises:
        DataError: data that is missing, damaged or not what it claims.
    """
    if choice.dataset == "digits":
        return digits_task(choice.dropout)
    if choice.dataset == "responses":
        return response_task(data_dir, choice.hidden_widths, choice.features, choice.dropout)
    if choice.dataset == "gestures":
        return gesture_task(data_dir, choice.loss, partial)
    return mnist_task(choice.dataset, data_dir, choice.dropout)


def architecture(choice: Choice, labels: tuple[str, ...]) -> nn.Module:
    """The model of a task, untrained; no data is loaded."""
    generator = torch.Generator()
    if choice.dataset == "digits":
        return digits_cnn(generator, choice.dropout)
    if choice.dataset == "gestures":
        return gesture_mlp(generator, len(labels), softmax=choice.loss == "mean-squared")
    return mnist_cnn(generator, choice.dropout)


def public_inputs(choice: Choice) -> Callable[[int], torch.Tensor]:
    """count → so many inputs of the task's kind, made up without its data."""
    if choice.dataset == "gestures":
        return lambda count: _synthetic_gestures(count, input_range_of(choice.loss))
    return lambda count: stroke_images(count, size=8 if choice.dataset == "digits" else 28)


def _synthetic_gestures(count: int, input_range: tuple[float, float]) -> torch.Tensor:
    half = count // 2
    motion = synthetic_recordings((half, count - half), _OTHER_SEED).motion
    return gesture_inputs(motion, input_range)
