"""Metrics of any shape: one value per example, numbers over all rows, or a torchmetrics object."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.trees import call, taken
from dpsgd_torch.errors import ModelError, told
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.losses import Loss, option, per_example
from dpsgd_torch.training.modes import evaluating

MOST = 100  # numbers of one metric; an epoch's record has one field for each
_COUNTS = 5, 7  # of one row over and over: what follows both is one value per example
_OBJECT = "update", "compute", "reset"


class Metrics:
    """What is told of the test set after each epoch: the loss, and metrics by name.

    A metric is one of three kinds, told apart by what it has and does:

    * an object with ``update(outputs, targets)``, ``compute()`` and ``reset()``, as those of
      torchmetrics: updated batch by batch;
    * a function (outputs, targets) that gives one value per example: its mean is taken, batch by
      batch; so is a function's with an argument ``reduction``, or a torch loss's;
    * any other function (outputs, targets): called once, on what the whole set has, on the CPU. It
      gives a number, an array or a dict of numbers.

    Whether a function's values follow the rows is seen on one row, taken five times and then seven:
    a test set of one row leaves no doubt, nor one that has as many rows as classes. A function that
    such rows are too few or too much alike for, as for an area under a curve, is tried on all.

    Of several numbers each has a name: those of ``{"f1": …}`` are ``f1/macro`` of a dict, ``f1/0``
    of an array. They are those of the first time, later as well: where the metric fails then or
    gives others, each is nan, with a warning, since what was trained is paid for.
    """

    def __init__(self, loss: Loss, given: Mapping[str, Any] | None = None) -> None:
        given = given or {}
        self.loss = loss
        self.per_example: dict[str, Loss] = {} if "loss" in given else {"loss": loss}
        self.objects: dict[str, Any] = {}
        self.whole: dict[str, Callable[..., Any]] = {}
        self.undecided: dict[str, Callable[..., Any]] = {}
        self.unsure = set[str]()  # functions that failed on the rows they were told apart by
        self.order = list({"loss": loss, **given})
        self.names: dict[str, list[str]] = {}
        for name, metric in given.items():
            if not isinstance(name, str) or not name:
                raise ModelError(f"metrics: name {name!r}: must be text, as its column is called")
            if not isinstance(metric, type) and all(
                callable(getattr(metric, part, None)) for part in _OBJECT
            ):
                self.objects[name] = metric
            elif not callable(metric):
                raise ModelError(
                    f"metric {name} = {type(metric).__name__}: must be a function (outputs, "
                    "targets), or an object with update, compute and reset"
                )
            elif isinstance(metric, type) or option(metric, "reduction") is not None:
                self.per_example[name] = per_example(metric, "metric")
            else:
                self.undecided[name] = metric

    def decide(self, model: nn.Module, data: Data) -> None:
        """Find out what each function gives; each is called on few rows.

        Raises:
            ModelError: the model fails on them.
        """
        for name, metric in list(self.undecided.items()):
            with evaluating(model), torch.no_grad():
                follows = _follows_rows(metric, model, data)
            if follows:
                self.per_example[name] = per_example(_tensors_of(metric), "metric")
            else:
                self.whole[name] = metric
                self.unsure |= {name} if follows is None else set()
            del self.undecided[name]

    def told(self, name: str, result: Any, rows: int) -> dict[str, float]:
        """A result as numbers by name, the same names each time.

        Raises:
            ModelError: it is none, or not what it was the first time.
        """
        found = numbers(name, result)
        if name not in self.names:
            if name in self.unsure and len(found) == rows > 1:
                raise ModelError(
                    f"{name}: gives {rows} values for {rows} rows, and fails on one row over and "
                    "over: return one number over all rows, or one for each of any rows"
                )
            taken = [each for names in self.names.values() for each in names]
            if doubled := set(found) & {*taken, *(n for n in self.order if n != name)}:
                raise ModelError(
                    f"{name}: gives {min(doubled)}, which another is called; rename one"
                )
            self.names[name] = list(found)
        elif list(found) != self.names[name]:
            raise ModelError(
                f"{name}: gives {', '.join(found)} where it gave "
                f"{', '.join(self.names[name])} before: name its classes, as labels=… does"
            )
        return found

    def unknown(self, name: str, error: Exception) -> dict[str, float]:
        """In place of numbers that cannot be had any more."""
        warnings.warn(
            f"metric {name}: failed ({told(error)}); told as nan, and training goes on",
            stacklevel=2,
        )
        return dict.fromkeys(self.names[name], float("nan"))


def numbers(name: str, result: Any) -> dict[str, float]:
    """A number, an array or a dict of numbers, flattened.

    Raises:
        ModelError: it is something else, or more than ``MOST`` numbers.

    >>> numbers("f1", torch.tensor(0.5)), numbers("f1", {"macro": 0.5, "each": np.ones(2)})
    ({'f1': 0.5}, {'f1/macro': 0.5, 'f1/each/0': 1.0, 'f1/each/1': 1.0})
    """
    if isinstance(result, Mapping):
        parts = [numbers(f"{name}/{key}", value).items() for key, value in result.items()]
        found = [pair for part in parts for pair in part]
        names = [each for each, _ in found]
        if doubled := [each for each in names if names.count(each) > 1]:
            raise ModelError(f"{name}: gives {doubled[0]} twice; rename one")
        return _few(name, dict(found))
    if isinstance(result, torch.Tensor):
        result = result.detach().cpu()
        values = (result if result.is_complex() else result.double()).numpy()
    elif isinstance(result, bool | int | float | np.ndarray | np.generic):
        values = np.asarray(result)
    else:
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise ModelError(
            f"{name} = {type(result).__name__}: must be a number, an array or a dict of "
            "numbers, or one value per example as a tensor; of several things return a dict"
        )
    if values.size == 1:
        return {name: float(values.item())}
    _few(name, range(values.size))
    places = np.ndindex(values.shape)
    return {"/".join([name, *map(str, place)]): float(values[place]) for place in places}


def _few(name: str, found: Any) -> Any:
    if not 1 <= len(found) <= MOST:
        raise ModelError(
            f"{name}: gives {len(found)} numbers: must be 1 to {MOST}, all told after "
            "each epoch; compute what is longer from the saved model"
        )
    return found


def _follows_rows(metric: Callable[..., Any], model: nn.Module, data: Data) -> bool | None:
    """Whether a metric gives one value for each of any rows; None where it fails on few."""
    one = data.take(np.zeros(1, np.int64))
    for count in _COUNTS:
        inputs, targets = taken(one, torch.zeros(count, dtype=torch.int64))
        with blamed(f"model over {count} test rows", model):
            outputs = call(model, inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the call that counts may warn
            try:
                result = metric(outputs, targets)
            except Exception:  # it is called on all rows next, and told to fail there
                return None
        shape = np.shape(result) if isinstance(result, torch.Tensor | np.ndarray) else ()
        if shape[:1] != (count,):
            return False
    return True


def _tensors_of(metric: Callable[..., Any]) -> Callable[..., Any]:
    def values(outputs: Any, targets: Any) -> Any:
        result = metric(outputs, targets)
        return torch.from_numpy(result) if isinstance(result, np.ndarray) else result

    values.__name__ = getattr(metric, "__name__", type(metric).__name__)
    return values
