"""Clamps that a layer takes along from the activation after it, in reals and on an int8 grid."""

from __future__ import annotations

import math

import numpy as np

from dpsgd_torch.export.tensors import Tensor

Clamp = tuple[float, float]
"""(low, high)."""

Limits = tuple[int, int]
"""(low, high) in int8."""

FREE: Limits = (-128, 127)

RELU: Clamp = (0.0, math.inf)

FUSED: dict[Clamp, int] = {RELU: 1, (0.0, 6.0): 3, (-1.0, 1.0): 2}
"""TensorFlow Lite's ActivationFunctionType of each that an operator of its can take along."""


def limits(clamp: Clamp, tensor: Tensor) -> Limits:
    """Where the ends lie on the tensor's grid, or the grid's own ends where these come first.

    >>> limits((0.0, 6.0), Tensor((1,), 0.5, -100))
    (-100, -88)
    """
    low, high = (_place(end, tensor) for end in clamp)
    return max(-128, min(low, 127)), max(-128, min(high, 127))


def fused(wanted: Limits, tensor: Tensor) -> int | None:
    """The ActivationFunctionType with just these limits on the tensor's grid; None: there is none.

    >>> fused((-100, -88), Tensor((1,), 0.5, -100))
    3
    """
    if wanted == FREE:
        return 0
    return next((code for clamp, code in FUSED.items() if limits(clamp, tensor) == wanted), None)


def _place(end: float, tensor: Tensor) -> int:
    """Halves away from zero, in float32, as TFLM has it."""
    if math.isinf(end):
        return 127 if end > 0 else -128
    with np.errstate(over="ignore"):
        steps = float(np.float32(end) / np.float32(tensor.scale))
    if abs(steps) > 512:
        return 127 if end > 0 else -128
    return tensor.zero_point + int(math.copysign(math.floor(abs(steps) + 0.5), steps))
