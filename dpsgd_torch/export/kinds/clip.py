"""Clip between two constants: ReLU6, Hardtanh and any other.

The layer before takes it along as the saturation of its output, or as TensorFlow Lite's fused RELU,
RELU6 or RELU_N1_TO_1 where the output's grid goes beyond the ends; else it is MAXIMUM and MINIMUM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.clamps import FREE, Clamp, Limits, limits
from dpsgd_torch.export.graph import Floats, LayerKind
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.c_steps import StepText
    from dpsgd_torch.export.lowering import Asked, Lowering
    from dpsgd_torch.export.tflite_write import Writer


@dataclass(frozen=True)
class Clip(LayerKind):
    """min(max(x, low), high), low ≤ high; either may be infinite."""

    low: float
    high: float

    @property
    def clamp(self) -> Clamp:
        return self.low, self.high

    def apply(self, *inputs: Floats) -> Floats:
        return np.clip(inputs[0], self.low, self.high)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(lows[0]), self.apply(highs[0])

    def lower(self, asked: Asked) -> int:
        return clamped(asked.into, asked.sources[0], self.clamp)

    def write_float(self, write: Writer, fused: int) -> None:
        ends = {"MAXIMUM": self.low, "MINIMUM": self.high}
        told = {name: np.array([end], np.float32) for name, end in ends.items() if np.isfinite(end)}
        _write(write, told, {})


def clamped(into: Lowering, source: int, clamp: Clamp) -> int:
    """The tensor clamped on its own grid; itself where nothing lies beyond the ends."""
    tensor = into.tensors[source]
    ends = limits(clamp, tensor)
    if source > 0 and ends == FREE:
        return source
    return into.add(ClampInt8(ends), tensor, source)


@dataclass(frozen=True)
class ClampInt8(OperationKind):
    """Input and output share scale and zero point."""

    ends: Limits

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        return np.clip(inputs[0], *self.ends)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        from dpsgd_torch.export.c_steps import StepText

        low, high = self.ends
        call = f"model_bound({target.size}, {low}, {high}, {{input}}, {{output}});"
        return StepText(("bound",), call)

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        told = {
            name: np.array([end], np.int8)
            for name, end, free in zip(("MAXIMUM", "MINIMUM"), self.ends, FREE, strict=True)
            if end != free or (name, self.ends) == ("MAXIMUM", FREE)
        }
        _write(write, told, {"scale": target.scale, "zero_point": target.zero_point})

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0


def _write(write: Writer, ends: dict[str, NDArray[Any]], quantization: dict[str, float]) -> None:
    at = write.source
    for left, (name, end) in enumerate(ends.items(), start=1 - len(ends)):
        value = f"layer_{write.index}.{name.lower()}"
        there = write.target
        if left < 0:
            there = write.file.value(f"{value}.kept", write.shape, end.dtype, **quantization)
        constant = write.file.constant(value, end, **quantization)
        write.file.operator(name, [at, constant], there, "MaximumMinimumOptions")
        at = there
