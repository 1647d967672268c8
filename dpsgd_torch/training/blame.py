"""Errors of the user's own code, told in one line: what failed, where in the model, and no values.

A message never prints a tensor of weights or data: what an exception says is kept only where it is
plain text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from torch import nn

from accountant import PrivacyError
from dpsgd_torch.errors import ModelError, RunError, TrainingError

_LONGEST = 200  # characters of a foreign message
_DECIMALS = re.compile(r"\d\.\d")  # more than a few are somebody's values


@contextlib.contextmanager
def blamed(
    what: str,
    model: nn.Module | None = None,
    *,
    hint: str = "",
    kind: type[TrainingError] = ModelError,
) -> Iterator[None]:
    """Tell an error raised inside as ``what`` failing, before anything is charged.

    >>> with blamed("loss over 2 examples"):
    ...     raise IndexError("Target 3 is out of bounds.")
    Traceback (most recent call last):
    dpsgd_torch.errors.ModelError: loss over 2 examples: failed (IndexError: Target 3 is out of
    bounds.); nothing was charged
    """
    try:
        yield
    except PrivacyError:
        raise
    except Exception as error:  # whatever the user's code raises
        where = told_by(error, model)
        raise kind(f"{what}: failed{where}; nothing was charged{hint}") from shown(error)


@contextlib.contextmanager
def within_charged_step(model: nn.Module, step: int) -> Iterator[None]:
    """Say of an error inside a step that the step is charged; its own type is the cause.

    Raises:
        RunError: in place of any error of the user's code, and of a model that is refused.
    """
    try:
        yield
    except ModelError as error:
        raise RunError(f"step {step}, which is charged: {error}") from shown(error)
    except PrivacyError:
        raise
    except Exception as error:
        raise RunError(
            f"step {step}: model, loss or optimizer failed{told_by(error, model)}; the step is "
            "charged and its noise is not drawn again: mend what failed, and go on from the last "
            "checkpoint with resume()"
        ) from shown(error)


def told_by(error: BaseException, model: nn.Module | None = None) -> str:
    """ " in layer PATH = TYPE (EXCEPTION: TEXT)", with the text left out where it shows values."""
    text = _plain_text(error)
    said = type(error).__name__ + (f": {text}" if text else "")
    return f"{_place(error, model)} ({said})"


def shown(error: BaseException) -> BaseException | None:
    """The error as a cause to chain, unless printing it would print values."""
    return error if _plain_text(error) is not None else None


def _plain_text(error: BaseException) -> str | None:
    if not all(isinstance(part, str | int | type(None)) for part in error.args):
        return None
    text = " ".join(str(error).split())
    if (
        re.search(r"tensor\(|array\(|Parameter containing", text)
        or len(_DECIMALS.findall(text)) > 3
    ):
        return None
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _place(error: BaseException, model: nn.Module | None) -> str:
    """The innermost of the model's modules in whose code the error was raised."""
    if model is None:
        return ""
    paths = {id(module): (path, module) for path, module in model.named_modules()}
    place, trace = "", error.__traceback__
    while trace is not None:
        path, module = paths.get(id(trace.tb_frame.f_locals.get("self")), ("", None))
        if module is not None:
            place = f" in {f'layer {path}' if path else 'the model'} = {type(module).__name__}"
        trace = trace.tb_next
    return place
