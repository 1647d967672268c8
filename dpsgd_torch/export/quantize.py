"""Float layers and their ranges → the integer program [Jacob et al. 2018, Sec. 2 and 3]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.clamps import Limits
from dpsgd_torch.export.fixed_point import (
    MOST_GAIN,
    divide,
    input_radius,
    logistic,
    multiplier,
    requantize,
    tanh,
)
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    Graph,
    Layer,
    Linear,
    Padding,
    Pooling,
    clamp_of,
)
from dpsgd_torch.export.lowering import Asked, LayerKind, Lowering, Real, agreed
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    Int8,
    MaxPool2D,
    Operation,
    Pad,
    Program,
    Requantization,
    Rescale,
    Softmax,
    Table,
    Tensor,
)
from dpsgd_torch.export.ranges import MOST_REAL, Range

_MOST_BIAS = 2**29 - 64  # below 2^29 still when the scale is rounded to float32
_PROBABILITY = (1 / 256, -128)  # scale and zero point of softmax and logistic
_SLOPE = (1 / 128, 0)  # of tanh
_MOST_FEATURES = 511  # of a softmax: with more, TFLM's sum of exponentials may pass its 28 bits


def quantize(graph: Graph, ranges: list[Range], labels: tuple[str, ...] = ()) -> Program:
    """Weights symmetric and by channel, activations by tensor, clamps in what precedes them.

    Args:
        graph: the float model.
        ranges: of its input and of each layer's output.
        labels: of the outputs.

    Raises:
        ExportError: numbers that could leave 32 bits, in a sum, a softmax or a scale.
    """
    return lowered(graph, ranges).program(labels)


def lowered(graph: Graph, ranges: list[Range]) -> Lowering:
    """The same, with which of the program's tensors stands for which of the graph's."""
    into = Lowering(graph, ranges)
    taken: set[int] = set()
    for index, layer in enumerate(graph.layers):
        if index in taken:
            continue
        clamp = graph.clamp_after(index)
        if clamp is not None:
            taken.add(clamp)
        target = (index if clamp is None else clamp) + 1
        sources = tuple(into.made[source] for source in graph.sources[index])
        ends = None if clamp is None else clamp_of(graph.layers[clamp])
        asked = Asked(into, sources, target, ends)
        made = layer.lower(asked) if isinstance(layer, LayerKind) else _lower(layer, asked)
        into.made[index + 1] = into.made[target] = asked.finished(made)
    return into


def _lower(layer: Layer, asked: Asked) -> int:
    before, shape = asked.before, asked.shape
    match layer:
        case Linear() | Convolution():
            whole = _whole(layer, before)
            after = asked.after(whole.least_scale)
            return asked.add(_sum(layer, whole, after, asked.limits(after)), after)
        case Pooling():
            after = Tensor(shape, before.scale, before.zero_point)
            pool = MaxPool2D if layer.kind == "max" else AveragePool2D
            return asked.add(pool(layer.window, *asked.limits(after)), after)
        case Padding():
            after = Tensor(shape, before.scale, before.zero_point)
            return asked.add(Pad(layer.padding), after)
        case Activation("relu"):
            if asked.sources[0] > 0 and before.zero_point == -128:  # nothing negative is left
                return asked.sources[0]
            after = asked.after(before.scale / MOST_GAIN)
            after = agreed(after, lambda after, real: _rescaled(before, after, real))
            return asked.add(_rescale(before, after), after)
        case Activation("softmax"):
            _refuse_wide(shape)
            return asked.add(_softmax(before), Tensor(shape, *_PROBABILITY))
        case Activation("tanh"):
            return asked.add(_table("tanh", before), Tensor(shape, *_SLOPE))
        case Activation("logistic"):
            return asked.add(_table("logistic", before), Tensor(shape, *_PROBABILITY))
    raise TypeError(layer)


def _refuse_wide(shape: tuple[int, ...]) -> None:
    if shape[0] > _MOST_FEATURES:
        raise ExportError(
            f"operator = Softmax: over {shape[0]} features; beyond {_MOST_FEATURES} its sum can "
            "leave its bits: end with the layer before it, whose largest output is the same"
        )


@dataclass(frozen=True, eq=False)
class _Whole:
    """A layer's weights and biases in whole numbers, by channel."""

    weights: NDArray[np.float64]
    scales: NDArray[np.float32]
    bias: NDArray[np.float64]
    units: NDArray[np.float64]  # what one of the sum stands for
    least_scale: float  # of the output, so that the largest sum can be shifted to it


def _whole(layer: Linear | Convolution, before: Tensor) -> _Whole:
    weights = layer.weights.reshape(len(layer.bias), -1).astype(np.float64)
    bias = layer.bias.astype(np.float64)
    largest = np.abs(weights).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1.0)
    # A bias is counted in units of input scale × weight scale: those must not be too small for it.
    scales = np.maximum(scales, np.abs(bias) / (before.scale * _MOST_BIAS))
    scales = np.clip(scales, 1e-30, MOST_REAL).astype(np.float32)
    units = before.scale * scales.astype(np.float64)
    if not units.max() < MOST_REAL:
        raise ExportError(
            f"model: a weight of {largest.max():.3g} or a bias of {np.abs(bias).max():.3g} is too "
            "large for its scale; train the model again with a lower learning rate"
        )
    whole = np.clip(np.round(weights / scales[:, None].astype(np.float64)), -127, 127)
    offset = np.round(bias / units)
    most = 255 * np.abs(whole).sum(axis=1) + np.abs(offset)
    if most.max() >= 2**31:
        raise ExportError(
            f"model: a layer of {weights.shape[1]} inputs can sum to {most.max():.3g}, beyond 32 "
            "bits; make it narrower"
        )
    return _Whole(whole, scales, offset, units, float((units * most).max()) / 2**29)


def _sum(layer: Linear | Convolution, whole: _Whole, after: Tensor, ends: Limits) -> Operation:
    pairs = [multiplier(float(unit / after.scale)) for unit in whole.units]
    how = Requantization(
        np.array([m for m, _ in pairs], np.int32),
        np.array([shift for _, shift in pairs], np.int32),
        *ends,
    )
    kernel = whole.weights.astype(np.int8).reshape(layer.weights.shape)
    bias = whole.bias.astype(np.int32)
    if isinstance(layer, Linear):
        return Dense(kernel, whole.scales, bias, how)
    return Conv2D(kernel, whole.scales, bias, how, layer.window, layer.groups)


def _rescale(before: Tensor, after: Tensor) -> Rescale:
    m, shift = multiplier(before.scale / after.scale)
    arrays = np.array([m], np.int32), np.array([shift], np.int32)
    return Rescale(Requantization(*arrays, low=max(-128, after.zero_point)))


def _rescaled(before: Tensor, after: Tensor, real: Real) -> Int8:
    """Of every value."""
    m, shift = multiplier(float(real(before.scale) / real(after.scale)))
    scaled = requantize(np.arange(-128, 128) - before.zero_point, m, shift)
    return _int8(np.clip(scaled + after.zero_point, -128, 127))


def _softmax(before: Tensor) -> Softmax:
    real = min(before.scale * (1 << 26), 2.0**31 - 1)
    m, shift = multiplier(real)
    return Softmax(m, shift, -input_radius(5, shift))


def _table(function: str, before: Tensor) -> Table:
    """All 256 values; beyond the radius the function is at its end."""
    x = np.arange(-128, 128, dtype=np.int64) - before.zero_point
    fraction, shift = math.frexp(before.scale * (1 << 27))
    m = math.floor(fraction * 2**31 + 0.5)
    radius = input_radius(4, shift)
    scaled = requantize(np.clip(x, -radius, radius), m, shift)
    if function == "tanh":
        inside = np.minimum(divide(tanh(scaled), 24), 127)
        values = np.where(x <= -radius, -128, np.where(x >= radius, 127, inside))
    else:
        inside = np.minimum(divide(logistic(scaled), 23), 255) - 128
        values = np.where(x <= -radius, -128, np.where(x >= radius, 127, inside))
    return Table(function, _int8(values))


def _int8(values: NDArray[np.int64]) -> NDArray[np.int8]:
    return values.astype(np.int8)
