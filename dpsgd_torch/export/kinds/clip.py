"""Clip between two constants: ReLU6, Hardtanh and any other.

The layer before takes it along as the saturation of its output, or as TensorFlow Lite's fused RELU,
RELU6 or RELU_N1_TO_1 where the output's grid goes beyond the ends; else it is MAXIMUM and MINIMUM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpsgd_torch.export.clamps import Clamp
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.kinds.bound import write_ends
from dpsgd_torch.export.lowering import Asked, LayerKind, clamped

if TYPE_CHECKING:
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
        write_ends(write, told, {})
