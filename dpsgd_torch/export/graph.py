"""The float model between ONNX and integers: a graph of layers, channels last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dpsgd_torch.export.clamps import RELU, Clamp
from dpsgd_torch.export.tensors import Window

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

Floats = NDArray[Any]  # float32, or float64 where bounds are computed


@dataclass(frozen=True, eq=False)
class Linear:
    """(out, in) weights and (out,) bias; the columns in the order the input lies in memory."""

    weights: Floats
    bias: Floats


@dataclass(frozen=True, eq=False)
class Convolution:
    """(out, kernel height, kernel width, in / groups) weights and (out,) bias; zeros pad."""

    weights: Floats
    bias: Floats
    window: Window
    groups: int


@dataclass(frozen=True)
class Pooling:
    """Cells outside the input are left out."""

    kind: Literal["max", "average"]
    window: Window


@dataclass(frozen=True)
class Padding:
    """Zeros around (height, width)."""

    padding: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Activation:
    """Softmax is over all features."""

    kind: Literal["relu", "tanh", "logistic", "softmax"]


class FloatKind(ABC):
    """One float layer: its function and bounds; ``lowering.LayerKind`` adds the integers."""

    takes_clamp = False
    """Whether ``lower`` and ``write_float`` can take along a clamp that alone reads the layer."""

    one_grid = False
    """Whether all its inputs must have its output's scale and zero point."""

    @property
    def keeps_grid(self) -> bool:
        """Whether its output has its input's scale and zero point, whatever the range."""
        return self.clamp is not None

    @property
    def clamp(self) -> Clamp | None:
        """(low, high), if clamping is all that it does: what reads it alone can be taken along."""
        return None

    @abstractmethod
    def apply(self, *inputs: Floats) -> Floats:
        """(batch, …) of each input → (batch, …)."""

    @abstractmethod
    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        """(low, high) of every output for inputs anywhere between."""

    @abstractmethod
    def write_float(self, write: Writer, fused: int) -> None:
        """The operator of a float32 .tflite; ``fused``: its activation; or ExportError."""


Layer = Linear | Convolution | Pooling | Padding | Activation | FloatKind


@dataclass(frozen=True)
class Graph:
    """Layers in an order in which each reads what is there.

    Tensor 0 is the model's input and tensor i + 1 what layer i makes; the last is the output.
    ``shapes``: of one example of each tensor. ``inputs``: which tensors each layer reads; none
    given: a chain. ``names``: of the ONNX nodes, for messages. ``as_given``: whether an input lies
    in memory row by row as it is given, not channels last.
    """

    layers: tuple[Layer, ...]
    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[tuple[int, ...], ...] = ()
    names: tuple[str, ...] = ()
    as_given: bool = False

    @property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """Which tensors each layer reads."""
        return self.inputs or tuple((index,) for index in range(len(self.layers)))

    def readers(self, tensor: int) -> tuple[int, ...]:
        """The layers that read it."""
        return tuple(i for i, sources in enumerate(self.sources) if tensor in sources)

    def clamp_after(self, index: int) -> int | None:
        """The layer that is a clamp and alone reads what layer ``index`` makes, which takes it."""
        layer = self.layers[index]
        if isinstance(layer, Activation | Padding):
            return None
        if isinstance(layer, FloatKind) and not layer.takes_clamp:
            return None
        readers = self.readers(index + 1)
        if len(readers) != 1 or clamp_of(self.layers[readers[0]]) is None:
            return None
        return readers[0]


def clamp_of(layer: Layer) -> Clamp | None:
    """(low, high) of a layer that only clamps."""
    if isinstance(layer, FloatKind):
        return layer.clamp
    return RELU if layer == Activation("relu") else None


def evaluate(graph: Graph, inputs: Floats) -> list[Floats]:
    """Every tensor in float32, the inputs first: (batch, *shape) each."""
    tensors = [np.asarray(inputs, np.float32)]
    for layer, sources, shape in zip(graph.layers, graph.sources, graph.shapes[1:], strict=True):
        made = apply(layer, *(tensors[source] for source in sources))
        tensors.append(made.reshape(len(inputs), *shape))
    return tensors


def apply(layer: Layer, *inputs: Floats) -> Floats:
    """One layer on (batch, …) of each input."""
    if isinstance(layer, FloatKind):
        return layer.apply(*inputs)
    (x,) = inputs
    match layer:
        case Linear(weights, bias):
            return x.reshape(len(x), -1) @ weights.T + bias
        case Convolution(weights, bias, window, groups):
            return convolve(x, weights, window, groups) + bias
        case Pooling("max", window):
            return cells(x, window, -np.inf).max(axis=(-2, -1))
        case Pooling("average", window):
            there = cells(np.ones_like(x[:1]), window, 0.0).sum(axis=(-2, -1))
            return np.asarray(cells(x, window, 0.0).sum(axis=(-2, -1)) / there, np.float32)
        case Padding(padding):
            return np.pad(x, ((0, 0), *padding, (0, 0)))
        case Activation("relu"):
            return np.maximum(x, 0)
        case Activation("tanh"):
            return np.tanh(x)
        case Activation("logistic"):
            return np.asarray(0.5 + 0.5 * np.tanh(x / 2), np.float32)
        case Activation("softmax"):
            power = np.exp(x - x.max(axis=-1, keepdims=True))
            return np.asarray(power / power.sum(axis=-1, keepdims=True))
    raise TypeError(layer)


def cells(x: NDArray[Any], window: Window, fill: float) -> NDArray[Any]:
    """(batch, height, width, channels) → (batch, out height, out width, channels, kernel…)."""
    if any(map(any, window.padding)):
        x = np.pad(x, ((0, 0), *window.padding, (0, 0)), constant_values=fill)
    down, across = window.stride
    found = sliding_window_view(x, window.reach, axis=(1, 2))[:, ::down, ::across]
    return found[..., :: window.dilation[0], :: window.dilation[1]]


def convolve(x: Floats, weights: Floats, window: Window, groups: int) -> Floats:
    """Exact in integers below 2^53 if both are float64."""
    patches = cells(x, window, 0.0)
    batch, height, width, channels = patches.shape[:4]
    out = len(weights)
    grouped = patches.reshape(batch, height, width, groups, channels // groups, -1)
    columns = np.moveaxis(grouped, 3, 0).reshape(groups, batch * height * width, -1)
    kernels = weights.reshape(groups, out // groups, -1, channels // groups)
    rows = kernels.transpose(0, 3, 2, 1).reshape(groups, -1, out // groups)
    return np.moveaxis(np.matmul(columns, rows), 0, 1).reshape(batch, height, width, out)
