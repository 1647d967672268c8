"""The training function that is audited: found by its name, called, and its answer understood."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpsgd_torch.errors import ConfigError, RunError, shown, told

Rows = tuple[torch.Tensor, torch.Tensor]
Training = Callable[[Rows, int], Any]


def found(name: str, what: str) -> Callable[..., Any]:
    """The function that ``module:function`` names, looked for in the current folder too.

    Raises:
        ConfigError: there is no such module or function, or it fails to load.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ConfigError(f"{what} = {shown(name)}: must be module:function, as my_training:train")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        hint = "run in its folder" if module.startswith(missing) else f"install {missing}"
        raise ConfigError(
            f"{what} = {name}: there is no module {missing}; {hint}, or set PYTHONPATH"
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{what} = {name}: {module} does not load ({told(error)}); mend it"
        ) from None
    for part in function.split("."):
        if not hasattr(value, part):
            raise ConfigError(f"{what} = {name}: {module} has no {function}; name a function of it")
        value = getattr(value, part)
    if not callable(value):
        raise ConfigError(f"{what} = {name}: is no function, but {type(value).__name__}")
    made: Callable[..., Any] = value
    return made


def check_signature(function: Callable[..., Any], arguments: tuple[str, ...], what: str) -> None:
    """Refuse a function that cannot be called with so many positional arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # written in C: it is seen when it is called
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ConfigError(
            f"{what} = {getattr(function, '__name__', 'function')}{signature}: is called with "
            f"({', '.join(arguments)}): {error}; take these"
        ) from None


def released(training: Training, rows: Rows, seed: int) -> Any:
    """What one training gives: a function of inputs, or all vectors that it released as (d,) array.

    Raises:
        RunError: it raises, or gives something else.
    """
    inputs, targets = (part.clone() for part in rows)  # theirs to change
    try:
        model = training((inputs, targets), seed)
    except Exception as error:
        raise RunError(f"train(data, seed={seed}): raises {told(error)}; mend it") from None
    if callable(model):
        return model
    try:
        return _vector(model)
    except (TypeError, ValueError, RuntimeError):
        raise RunError(
            f"train(data, seed={seed}): gives {type(model).__name__}; must give a model to call "
            "with inputs, or a list of released vectors"
        ) from None


def _vector(value: Any) -> np.ndarray:
    """All released vectors, one after the other."""
    if isinstance(value, torch.Tensor):
        return value.detach().double().cpu().numpy().ravel()
    if isinstance(value, (list, tuple)) and value and not np.isscalar(value[0]):
        return np.concatenate([_vector(part) for part in value])
    array = np.asarray(value, float).ravel()
    if not array.size:
        raise ValueError("nothing was released")
    return array


def answers(model: Any, inputs: torch.Tensor) -> np.ndarray:
    """(inputs, classes) what a model says, in evaluation mode.

    Raises:
        RunError: it raises, or does not answer once for each input.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    try:
        with torch.no_grad():
            told_all = model(inputs)
        if isinstance(told_all, torch.Tensor):
            told_all = told_all.detach().double().cpu().numpy()
        array = np.asarray(told_all, float)
    except Exception as error:
        raise RunError(
            f"model: raises when called with {tuple(inputs.shape)} inputs ({told(error)}); train "
            "must return what answers a tensor of inputs"
        ) from None
    if array.ndim == 0 or array.shape[0] != len(inputs):
        raise RunError(
            f"model: answers {array.shape} to {len(inputs)} inputs; must give one row an input"
        )
    return array.reshape(len(inputs), -1)
