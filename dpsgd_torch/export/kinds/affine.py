"""x × factor + offset by channel: BatchNorm in evaluation, and constants that scale or shift.

It is no operator of its own: ``fold_affine`` takes it into the layer before or behind it, or makes
a depthwise 1 × 1 convolution of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.lowering import Asked, LayerKind

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine(LayerKind):
    """(channels,) each, of the last axis, in float64."""

    factor: Doubles
    offset: Doubles

    def apply(self, *inputs: Floats) -> Floats:
        x = inputs[0]
        return np.asarray(x * self.factor + self.offset, x.dtype)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        ends = self.apply(lows[0]), self.apply(highs[0])
        return np.minimum(*ends), np.maximum(*ends)

    def lower(self, asked: Asked) -> int:
        self._refuse()

    def write_float(self, write: Writer, fused: int) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ExportError(
            f"operator = Mul or Add of a constant: of {self.factor.size} channels that no layer "
            "takes along; fold the graph first (export.fold_affine)"
        )


def constant(channels: int, factor: Floats | float = 1.0, offset: Floats | float = 0.0) -> Affine:
    """Of constants by channel, or one for all."""
    made = (np.asarray(each, np.float64).reshape(-1) for each in (factor, offset))
    return Affine(*(np.broadcast_to(each, (channels,)) for each in made))


def batch_norm(
    scale: Floats, shift: Floats, mean: Floats, variance: Floats, epsilon: float
) -> Affine:
    """In evaluation: (x − mean) / √(variance + epsilon) × scale + shift [Ioffe and Szegedy 2015].

    >>> norm = batch_norm(np.ones(1), np.ones(1), np.full(1, 2.0), np.full(1, 4.0), 0.0)
    >>> norm.apply(np.array([[6.0]])).tolist()
    [[3.0]]
    """
    numbers = [np.asarray(each, np.float64) for each in (scale, shift, mean, variance)]
    factor = numbers[0] / np.sqrt(numbers[3] + epsilon)
    return Affine(factor, numbers[1] - numbers[2] * factor)
