"""Settings of functional calls that torch's exporter drops: refused by function, file and line."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dpsgd_torch.errors import ExportError

_ARGUMENTS = {
    "avg": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
            "divisor_override"),
    "max": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
}  # fmt: skip


def refuse_dropped_calls(model: nn.Module, inputs: torch.Tensor) -> None:
    """Refuse calls of functions that would not be written as they compute.

    Args:
        model: in evaluation mode.
        inputs: (batch, …), which it takes.

    Raises:
        ExportError: the function's name, its setting and the line that calls it.

    >>> class Net(nn.Module):
    ...     def forward(self, x):
    ...         return nn.functional.avg_pool2d(x, 2, divisor_override=3)
    >>> refuse_dropped_calls(Net(), torch.zeros(2, 1, 4, 4))
    Traceback (most recent call last):
    dpsgd_torch.errors.ExportError: F.avg_pool2d (...): divisor_override = 3 is dropped by ...
    """
    with torch.no_grad(), _Watched():
        model(inputs)


class _Watched(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        _look(name, args, given)
        return func(*args, **given)


def _look(name: str, args: tuple[Any, ...], given: dict[str, Any]) -> None:
    kind, _, rest = name.removeprefix("_").partition("_pool")
    if kind not in _ARGUMENTS or rest[:2] not in ("1d", "2d", "3d"):
        return
    told = dict(zip(("input", *_ARGUMENTS[kind]), args, strict=False)) | given
    if told.get("divisor_override") is not None:
        _refuse(
            name,
            f"divisor_override = {told['divisor_override']} is dropped by torch's exporter; leave "
            "it out, and put the factor into the next layer's weights",
        )
    if told.get("ceil_mode") and _outside(told, int(rest[0])):
        _refuse(
            name,
            "ceil_mode leaves out a last window that would begin in the padding, and ONNX does "
            "not; set ceil_mode=False, or another padding",
        )


def _outside(told: dict[str, Any], count: int) -> bool:
    kernel = _each(told["kernel_size"], count)
    stride = told.get("stride")
    return leaves_out(
        told["input"].shape[-count:],
        kernel,
        _each(stride, count) if stride else kernel,
        _each(told.get("padding", 0), count),
        _each(told.get("dilation", 1), count),
    )


def _each(value: Any, count: int) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, (tuple, list)) else (int(value),)
    return given * count if len(given) == 1 else given


def leaves_out(
    sizes: Sequence[int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> bool:
    """Whether a window, rounded up to, would begin past the input and the padding before it."""
    return any(
        math.ceil((size + 2 * pad - apart * (k - 1) - 1) / step) * step >= size + pad
        for size, k, step, pad, apart in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )


def _refuse(name: str, rule: str) -> NoReturn:
    raise ExportError(f"F.{name} ({_where()}): {rule}")


def _where() -> str:
    """The user's line: the last outside torch and this file."""
    ours = Path(torch.__file__).parent
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if ours not in path.parents and path != Path(__file__):
            return f"{path.name}, line {frame.lineno}"
    return "a call"
