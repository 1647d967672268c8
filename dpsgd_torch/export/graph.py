"""The float model between ONNX and integers: a chain of layers, channels last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dpsgd_torch.export.program import Window

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


Layer = Linear | Convolution | Pooling | Padding | Activation


@dataclass(frozen=True)
class Graph:
    """Layers in order, and the shape of one example before each and after the last."""

    layers: tuple[Layer, ...]
    shapes: tuple[tuple[int, ...], ...]


def evaluate(graph: Graph, inputs: Floats) -> list[Floats]:
    """Every tensor in float32, the inputs first: (batch, *shape) each."""
    tensors = [np.asarray(inputs, np.float32)]
    for layer, shape in zip(graph.layers, graph.shapes[1:], strict=True):
        tensors.append(apply(layer, tensors[-1]).reshape(len(inputs), *shape))
    return tensors


def apply(layer: Layer, x: Floats) -> Floats:
    """One layer on (batch, …)."""
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
    return sliding_window_view(x, window.kernel, axis=(1, 2))[:, ::down, ::across]


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
