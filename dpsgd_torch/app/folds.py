"""Who trains and who is held out: the folds of a run, cut between units, never through one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.data.trees import length
from dpsgd_torch.data.unit_ids import units_of
from dpsgd_torch.errors import ConfigError, DataError
from dpsgd_torch.tasks.task import Pair, Task
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.validation import Validation

_HELD_OUT = 5  # one in so many is held out where there is no cross-validation


@dataclass(frozen=True)
class Fold:
    """What one model of a run is trained on, and what it is watched on.

    ``config.dataset_size`` is that of this fold: declared, not counted.
    """

    name: str
    config: RunConfig
    train: Pair
    units: torch.Tensor | None
    validation: Validation | None


def chosen_units(config: RunConfig, task: Task) -> torch.Tensor | None:
    """The ids whose privacy is asked for; None where each record is for itself.

    Raises:
        ConfigError: the data has no such column, or each of its rows is another unit.
    """
    name = config.privacy_unit
    if name == "record":
        return None
    if name not in task.units:
        known = ", ".join(["record", *task.units])
        raise ConfigError(f"privacy_unit = {name}: the data has no such ids; choose among {known}")
    ids = task.units[name]
    if len(ids.unique()) == len(ids):
        raise ConfigError(
            f"privacy_unit = {name}: differs in every row, so that each is a unit; "
            "pass --privacy-unit record"
        )
    return ids


def sized(
    config: RunConfig, task: Task, units: torch.Tensor | None, *, follows: bool = False
) -> RunConfig:
    """``config`` with the number of its units, counted where none was declared.

    Args:
        follows: lower a batch that is larger than the units which one model is trained on.
    """
    count = config.dataset_size
    if count is None:
        count = length(task.train[0]) if units is None else len(units.unique())
    batch = config.batch_size
    if follows:
        batch = max(1, min(batch, count - _held_out(config, count)))
    return dataclasses.replace(config, dataset_size=count, batch_size=batch)


def _held_out(config: RunConfig, count: int) -> int:
    """How many of ``count`` declared units a fold holds out, in expectation."""
    if config.validation == "none":
        return 0
    return max(1, round(count / (config.folds if config.folds > 1 else _HELD_OUT)))


def make_folds(config: RunConfig, task: Task, units: torch.Tensor | None, root: int) -> list[Fold]:
    """One fold for each model; ``config.dataset_size`` is the declared number of all units.

    * Each unit is held out by one fold, drawn for it alone: who else is there does not matter.

    Raises:
        DataError: a fold without a row, or without a positive label among its rows.
    """
    assert config.dataset_size is not None
    if config.validation == "none":
        return [Fold("training", config, task.train, units, None)]
    count = length(task.train[0])
    ids = torch.arange(count) if units is None else units
    codes = units_of(ids, count).codes
    number = config.folds if config.folds > 1 else _HELD_OUT
    streams = Streams(root, secure=config.secure)
    drawn = streams.numpy("folds").integers(number, size=int(codes.max()) + 1)
    fold = torch.from_numpy(drawn[codes])
    size = _held_out(config, config.dataset_size)
    smaller = dataclasses.replace(config, dataset_size=config.dataset_size - size)
    folds = []
    for held in range(config.folds):
        inside = fold == held
        train, kept = _rows(task.train, ~inside), _rows(task.train, inside)
        _refuse_empty(held, train, kept)
        validation = Validation(
            tensors=kept,
            public=config.validation == "public",
            released=config.validation != "selection",
            size=size,
            noise_multiplier=config.validation_noise,
            bound=config.validation_bound,
            secure=config.secure,
            units=None if units is None else units[inside].numpy(),
        )
        name = f"fold-{held + 1}" if config.folds > 1 else "training"
        remaining = None if units is None else units[~inside]
        kept_in = length(train[0]) if remaining is None else len(remaining.unique())
        fits = dataclasses.replace(smaller, batch_size=min(smaller.batch_size, kept_in))
        # with privacy the batch is a share of the declared number, and no row is counted
        folds.append(Fold(name, smaller if config.dp else fits, train, remaining, validation))
    return folds


def _rows(data: Pair, which: torch.Tensor) -> Pair:
    return InMemory(*data).rows(which.numpy()).in_memory()


def _refuse_empty(fold: int, train: Pair, kept: Pair) -> None:
    rule = ""
    if not length(kept[0]) or not length(train[0]):
        rule = "has no row to train on, or none to watch"
    elif kept[1].is_floating_point() and not kept[1].any():
        rule = "has no positive label among its rows"
    if rule:
        raise DataError(f"fold {fold + 1}: {rule}; lower --folds, or choose another --seed")
