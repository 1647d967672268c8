"""Mean over spatial axes, as ONNX's ReduceMean: TensorFlow Lite's MEAN.

ONNX's AveragePool and GlobalAveragePool are AVERAGE_POOL_2D, which keeps the scale and rounds the
mean of raw values half away from zero. MEAN has a scale of its own and rounds as every rescaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.fixed_point import MOST_GAIN, multiplier, requantize
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Mean(LayerKind):
    """Over neighbouring ``axes`` of one example, (height, width, channels), in rising order."""

    axes: Axes
    keepdims: bool

    def apply(self, *inputs: Floats) -> Floats:
        axes = tuple(axis + 1 for axis in self.axes)
        return np.asarray(inputs[0].mean(axis=axes, keepdims=self.keepdims, dtype=inputs[0].dtype))

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(lows[0]), self.apply(highs[0])

    def lower(self, asked: Asked) -> int:
        before = asked.before
        after = asked.after(least=before.scale / MOST_GAIN)
        count = int(np.prod([before.shape[axis] for axis in self.axes]))
        m, shift = multiplier(before.scale / after.scale)
        bits = min(count.bit_length() - 1, 31 + shift)
        return asked.add(MeanInt8(self.axes, (m << bits) // count, shift - bits), after)

    def write_float(self, write: Writer, fused: int) -> None:
        _write(write, self.axes, self.keepdims)


@dataclass(frozen=True)
class MeanInt8(OperationKind):
    """The sum times (multiplier, shift), which hold the division by the count."""

    axes: Axes
    multiplier: int
    shift: int

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        real = inputs[0] - sources[0].zero_point
        total = real.sum(axis=tuple(axis + 1 for axis in self.axes))
        scaled = requantize(total, self.multiplier, self.shift)
        return np.clip(scaled + target.zero_point, -128, 127)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        shape = sources[0].shape
        first, last = self.axes[0], self.axes[-1] + 1
        sizes = (int(np.prod(part)) for part in (shape[:first], shape[first:last], shape[last:]))
        numbers = (sources[0].zero_point, self.multiplier, -self.shift, target.zero_point)
        told = ", ".join(map(str, (*sizes, *numbers)))
        return StepText(("mean",), f"model_mean({told}, {{input}}, {{output}});")

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        _write(write, self.axes, len(target.shape) == len(sources[0].shape))

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0

    @property
    def only_down(self) -> bool:
        return self.shift < 0


def _write(write: Writer, axes: Axes, keepdims: bool) -> None:
    table = np.array([axis + 1 for axis in axes], np.int32)
    constant = write.file.constant(f"layer_{write.index}.axes", table)
    write.file.operator(
        "MEAN", [write.source, constant], write.target, "ReducerOptions", keepDims=keepdims
    )
