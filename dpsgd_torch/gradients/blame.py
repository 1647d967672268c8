"""Errors of the user's own code, told in one line: what failed, and where; no values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import nn

from accountant import PrivacyError
from dpsgd_torch.errors import ModelError, RunError, TrainingError, told

_FREE = "nothing was charged"


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
    except PrivacyError as error:
        if _FREE in str(error):
            raise
        raise type(error)(f"{what}: {error}; {_FREE}").with_traceback(error.__traceback__) from None
    except Exception as error:  # whatever the user's code raises
        raise kind(
            f"{what}: failed{_place(error, model)} ({told(error)}); {_FREE}{hint}"
        ).with_traceback(error.__traceback__) from None


@contextlib.contextmanager
def within_charged_step(model: nn.Module, step: int, charged: Callable[[], str]) -> Iterator[None]:
    """Say of an error inside a step what was charged, where no other rank has said so already.

    Raises:
        RunError: in place of any error of the user's code; ours keep their type.
    """
    try:
        yield
    except PrivacyError as error:
        known = getattr(error, "known_to_all", False)
        if known and f"step {step}: " in str(error):  # worded by whoever raised it
            raise
        worded = type(error)(f"step {step}: {error}; {charged()}")
        if known:
            worded.known_to_all = True  # type: ignore[attr-defined]
        raise worded from error
    except Exception as error:  # whatever the user's code raises
        raise RunError(
            f"step {step}: model, loss or optimizer failed{_place(error, model)} ({told(error)}); "
            f"{charged()}"
        ).with_traceback(error.__traceback__) from None


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
