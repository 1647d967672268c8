"""Leaky ReLU: x where it is positive, slope × x elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpsgd_torch.export.fixed_point import MOST_GAIN, multiplier, requantize
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.kinds.lookup import EVERY, Lookup
from dpsgd_torch.export.lowering import Asked, LayerKind, Real, agreed
from dpsgd_torch.export.program import Int8, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer


MOST_SLOPE = 100.0


@dataclass(frozen=True)
class LeakyRelu(LayerKind):
    """``slope`` from 0 to ``MOST_SLOPE``."""

    slope: float

    def apply(self, *inputs: Floats) -> Floats:
        x = inputs[0]
        return np.asarray(np.where(x > 0, x, x * x.dtype.type(self.slope)))

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(lows[0]), self.apply(highs[0])

    def lower(self, asked: Asked) -> int:
        before = asked.before
        after = asked.after(least=before.scale * max(1.0, self.slope) / MOST_GAIN)
        after = agreed(after, lambda after, real: _table(before, after, self.slope, real))
        return asked.add(LeakyReluInt8(_table(before, after, self.slope), self.slope), after)

    def write_float(self, write: Writer, fused: int) -> None:
        _write(write, self.slope)


@dataclass(frozen=True, eq=False)
class LeakyReluInt8(Lookup):
    """A factor for each sign."""

    slope: float
    function = "leaky_relu"

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        _write(write, self.slope)


def _table(before: Tensor, after: Tensor, slope: float, real: Real = np.float64) -> Int8:
    scale, out = real(before.scale), real(after.scale)
    x = EVERY - before.zero_point
    positive = requantize(x, *multiplier(float(scale / out)))
    negative = requantize(x, *multiplier(float(scale * real(np.float32(slope)) / out)))
    values = np.where(x >= 0, positive, negative) + after.zero_point
    return np.clip(values, -128, 127).astype(np.int8)


def _write(write: Writer, slope: float) -> None:
    write.file.operator("LEAKY_RELU", [write.source], write.target, "LeakyReluOptions", alpha=slope)
