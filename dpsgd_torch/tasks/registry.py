"""The registry of tasks, by the name of their data; it loads none of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.base import Knobs, TaskKind
from dpsgd_torch.tasks.cifar.kind import Cifar
from dpsgd_torch.tasks.digits.kind import Digits
from dpsgd_torch.tasks.drug_responses.kind import DrugResponses
from dpsgd_torch.tasks.gestures.kind import Gestures
from dpsgd_torch.tasks.machines.kind import Machines
from dpsgd_torch.tasks.mnist.kind import FashionMnist, Mnist
from dpsgd_torch.tasks.speech.kind import Speech
from dpsgd_torch.tasks.text.kind import Text
from dpsgd_torch.tasks.wake_words.kind import WakeWords

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task

TASKS: dict[str, TaskKind] = {}


def register(kind: TaskKind) -> TaskKind:
    """Make a task known by its name.

    Raises:
        ConfigError: no task kind, a knob without help, or a preset's name that another task has.

    >>> register(Digits()).name
    'digits'
    """
    if not isinstance(kind, TaskKind):
        raise ConfigError(f"kind = {kind!r}: must be a TaskKind, made; register(Kind())")
    for field in dataclasses.fields(kind.knobs):
        if "help" not in field.metadata:
            raise ConfigError(f"{kind.name}: {field.name} has no help; make it with knob(…)")
    for other in TASKS.values():
        taken = {each.name for each in other.presets} & {each.name for each in kind.presets}
        if taken and other.name != kind.name:
            raise ConfigError(f"{kind.name}: {other.name} has a preset {min(taken)}; rename it")
    TASKS[kind.name] = kind
    return kind


for _kind in (
    Mnist(), FashionMnist(), Digits(), Gestures(), DrugResponses(), Text(),
    Speech(), WakeWords(), Cifar(), Machines(),
):  # fmt: skip
    register(_kind)


class Choice(Protocol):
    """The fields of a configuration that say which task."""

    @property
    def dataset(self) -> str: ...
    @property
    def task(self) -> Knobs: ...


def kind_of(dataset: str) -> TaskKind:
    """The task of that name.

    Raises:
        ConfigError: none is known by it.
    """
    if dataset not in TASKS:
        raise ConfigError(f"dataset = {dataset}: must be one of {', '.join(TASKS)}")
    return TASKS[dataset]


def load_task(choice: Choice, data_dir: Path | None, partial: str = "refuse") -> Task:
    """The task with its data.

    Raises:
        DataError: data that is missing, damaged or not what it claims.
    """
    return kind_of(choice.dataset).load(choice.task, data_dir, partial)


def architecture(choice: Choice, labels: tuple[str, ...]) -> nn.Module:
    """The model of a task, untrained; no data is loaded."""
    return kind_of(choice.dataset).architecture(choice.task, labels)


def public_inputs(choice: Choice) -> Callable[[int], torch.Tensor]:
    """count → so many inputs of the task's kind, made without its data."""
    return kind_of(choice.dataset).public_inputs(choice.task)
