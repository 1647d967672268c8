"""The integer program: what every back end (numpy, .tflite, C) carries out, to the last bit.

Steps on int8 tensors in channels-last order, one example at a time; each reads what any before it
made. A tensor stands for the reals ``scale × (value − zero_point)``. The arithmetic is TensorFlow
Lite Micro's: int32 sums, then ``fixed_point.requantize`` by (multiplier, shift), the zero point
added, and a clamp.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.tensors import Int8 as Int8
from dpsgd_torch.export.tensors import Int32 as Int32
from dpsgd_torch.export.tensors import Tensor as Tensor
from dpsgd_torch.export.tensors import Window as Window

if TYPE_CHECKING:
    from dpsgd_torch.export.c_text import StepText
    from dpsgd_torch.export.tflite_write import Writer


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


class OperationKind(ABC):
    """One integer operation with all its back ends; one file a kind, in ``kinds/``."""

    same_bytes = False
    """Whether its output is its input, byte for byte, in another shape."""

    @property
    def constant_bytes(self) -> int:
        """What its constants take in flash, about."""
        return 0

    @abstractmethod
    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        """(batch, *shape) of each source → (batch, *target.shape), within int8."""

    @abstractmethod
    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        """Its constants, called ``name…``, and its call, of {input}, {input1}, … and {output}."""

    @abstractmethod
    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        """The operator, whose interpretation gives the same bytes; or ExportError."""

    @property
    def only_down(self) -> bool:
        """Whether it calls ``model_requantize`` for shifts to the right, sums below 2^30, alone."""
        return True

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        """How many bytes before input ``which``, or more, the output may begin and overwrite it."""
        return None

    def lead_alone(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        """How many bytes before it the output may begin, but neither more nor less."""
        return None


Operation = (
    Dense | Conv2D | MaxPool2D | AveragePool2D | Rescale | Table | Softmax | Pad | OperationKind
)


@dataclass(frozen=True)
class Step:
    """One operation, what it makes, and which tensors it reads; none named: the one before."""

    operation: Operation
    output: Tensor
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """The model: tensor 0 is its input, tensor i + 1 what step i makes, the last its output."""

    input: Tensor
    steps: tuple[Step, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    as_given: bool = False
    """Whether an input lies row by row as the float model takes it, not channels last."""

    @property
    def output(self) -> Tensor:
        return self.steps[-1].output

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The input, then each step's output."""
        return (self.input, *(step.output for step in self.steps))

    @property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """Which tensors each step reads."""
        return tuple(step.inputs or (index,) for index, step in enumerate(self.steps))

    @property
    def read(self) -> tuple[tuple[int, ...], ...]:
        """``sources``, but a tensor with the very bytes of another is that other."""
        place = list(range(len(self.steps) + 1))
        for index, (step, sources) in enumerate(zip(self.steps, self.sources, strict=True)):
            if _same_bytes(step.operation):
                place[index + 1] = place[sources[0]]
        return tuple(tuple(place[source] for source in sources) for sources in self.sources)

    def is_nothing(self, index: int) -> bool:
        """Whether a step leaves the bytes where they are."""
        return _same_bytes(self.steps[index].operation) and index + 1 < len(self.steps)

    def quantize(self, inputs: NDArray[Any]) -> Int8:
        """Reals (batch, …) → int8 as a runtime does it: round half away from zero, clamp."""
        scaled = np.asarray(inputs, np.float32) / np.float32(self.input.scale)
        rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)) + self.input.zero_point
        return np.clip(rounded, -128, 127).astype(np.int8)


def _same_bytes(operation: Operation) -> bool:
    return isinstance(operation, OperationKind) and operation.same_bytes
