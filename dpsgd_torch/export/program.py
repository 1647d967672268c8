"""The integer program: what every back end (numpy, .tflite, C) carries out, to the last bit.

A chain of steps on int8 tensors in channels-last order, one example at a time. A tensor stands
for the reals ``scale × (value − zero_point)``. The arithmetic is TensorFlow Lite Micro's: int32
sums, then ``fixed_point.requantize`` by (multiplier, shift), the zero point added, and a clamp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Tensor:
    """Shape of one example, (features,) or (height, width, channels), and what its values mean."""

    shape: tuple[int, ...]
    scale: float
    """A float32."""
    zero_point: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Window:
    """How a kernel moves; ``padding`` is ((top, bottom), (left, right)).

    Padded cells hold the input's zero point in a convolution and are left out by a pool.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Requantization:
    """Per output channel: real factor = multiplier/2^31 × 2^shift; then clamp to [low, high]."""

    multiplier: Int32
    shift: Int32
    low: int = -128
    high: int = 127


@dataclass(frozen=True, eq=False)
class Dense:
    """Σ_i weights[o, i] (x_i − zero_point) + bias[o]; a (h, w, c) input is read as it lies."""

    weights: Int8  # (out, in)
    weight_scales: NDArray[np.float32]  # (out,)
    bias: Int32  # (out,), in units of input scale × weight scale
    requantization: Requantization


@dataclass(frozen=True, eq=False)
class Conv2D:
    """Group g of outputs sees group g of the input's channels; depthwise if groups = channels."""

    weights: Int8  # (out, kernel height, kernel width, in / groups)
    weight_scales: NDArray[np.float32]
    bias: Int32
    requantization: Requantization
    window: Window
    groups: int = 1


@dataclass(frozen=True)
class MaxPool2D:
    """Largest of the window's cells; input and output share scale and zero point."""

    window: Window
    low: int = -128
    high: int = 127


@dataclass(frozen=True)
class AveragePool2D:
    """Mean of the window's cells inside the input, rounded half away from zero."""

    window: Window
    low: int = -128
    high: int = 127


@dataclass(frozen=True, eq=False)
class Rescale:
    """One factor for all: a ReLU that could not be fused into the step before it."""

    requantization: Requantization  # arrays of length 1


@dataclass(frozen=True, eq=False)
class Table:
    """A function of one value, TFLM's tanh or logistic: table[value + 128]."""

    function: str  # "tanh" | "logistic"
    table: Int8  # (256,)


@dataclass(frozen=True)
class Softmax:
    """TFLM's fixed-point softmax over the features; output scale 1/256, zero point −128."""

    multiplier: int
    shift: int
    diff_min: int


@dataclass(frozen=True)
class Pad:
    """Cells of the zero point around the input, where a window's own padding cannot say it."""

    padding: tuple[tuple[int, int], tuple[int, int]]


Operation = Dense | Conv2D | MaxPool2D | AveragePool2D | Rescale | Table | Softmax | Pad


@dataclass(frozen=True)
class Step:
    """One operation and what it makes."""

    operation: Operation
    output: Tensor


@dataclass(frozen=True)
class Program:
    """The model: each step takes what the one before it made."""

    input: Tensor
    steps: tuple[Step, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def output(self) -> Tensor:
        return self.steps[-1].output

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The input, then each step's output."""
        return (self.input, *(step.output for step in self.steps))

    def quantize(self, inputs: NDArray[Any]) -> Int8:
        """Reals (batch, …) → int8 as a runtime does it: round half away from zero, clamp."""
        scaled = np.asarray(inputs, np.float32) / np.float32(self.input.scale)
        rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)) + self.input.zero_point
        return np.clip(rounded, -128, 127).astype(np.int8)
