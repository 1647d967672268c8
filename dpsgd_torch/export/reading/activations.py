"""Functions of each value, and softmax."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import onnx

from dpsgd_torch.export.graph import Activation
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import MOST_SLOPE, LeakyRelu
from dpsgd_torch.export.kinds.view import View
from dpsgd_torch.export.reading.constants import affine
from dpsgd_torch.export.reading.reader import Attributes, Reader, reads, refuse
from dpsgd_torch.export.reading.values import Value

_KINDS: dict[str, Literal["relu", "tanh", "logistic"]] = {
    "Relu": "relu",
    "Tanh": "tanh",
    "Sigmoid": "logistic",
}


@reads(*_KINDS)
def activation(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    return reader.append_cell_by_cell(node, Activation(_KINDS[node.op_type]), reader.value(node))


@reads("Clip")
def clip(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    ends = [
        float(attributes.get(name, end)) for name, end in (("min", -math.inf), ("max", math.inf))
    ]
    for index in (1, 2):
        if len(node.input) > index and node.input[index]:
            ends[index - 1] = _number(reader, node, index)
    if not ends[0] <= ends[1]:
        refuse(node, f"between {ends[0]} and {ends[1]}: the first must be the lower end")
    return reader.append_cell_by_cell(node, Clip(*ends), reader.value(node))


@reads("Max", "Min")
def end(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """Of one tensor and one number."""
    places = [index for index in range(len(node.input)) if reader.is_constant(node, index)]
    if len(node.input) != 2 or len(places) != 1:
        refuse(node, "of several computed tensors cannot be carried further; only of one number")
    number, value = _number(reader, node, places[0]), reader.value(node, 1 - places[0])
    least = node.op_type == "Max"
    layer = Clip(number if least else -math.inf, math.inf if least else number)
    return reader.append_cell_by_cell(node, layer, value)


@reads("LeakyRelu")
def leaky_relu(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    return _leaky(reader, node, float(attributes.get("alpha", 0.01)), reader.value(node))


def _leaky(reader: Reader, node: onnx.NodeProto, slope: float, value: Value) -> Value:
    if not 0 <= slope <= MOST_SLOPE:
        refuse(node, f"alpha = {slope}: must lie between 0 and {MOST_SLOPE:g} to be carried")
    return reader.append_cell_by_cell(node, LeakyRelu(slope), value)


@reads("PRelu")
def prelu(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """One slope for all is a leaky ReLU; slopes by channel: max(x, 0) and slope × min(x, 0)."""
    slopes, value = reader.constant(node, 1), reader.value(node)
    if np.broadcast_shapes(slopes.shape, (1, *value.shape)) != (1, *value.shape):
        refuse(node, f"slopes of shape {slopes.shape} do not fit {value.shape}; one a channel does")
    if slopes.size == 1 or (slopes == slopes.flat[0]).all():
        return _leaky(reader, node, float(slopes.flat[0]), value)
    above = reader.append_cell_by_cell(node, Clip(0.0, math.inf), value)
    below = reader.append_cell_by_cell(node, Clip(-math.inf, 0.0), value)
    none = np.array(0.0)
    below = affine(reader, node, below, slopes.astype(np.float64), none)
    return reader.append_cell_by_cell(node, Add(), above, below)


@reads("LogSoftmax")
def log_softmax(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    refuse(
        node,
        "has no integers; end with what it reads, whose largest output is the same, and let the "
        "loss take the logarithm in training",
    )


@reads("HardSwish")
def hard_swish(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    return reader.append_cell_by_cell(node, HardSwish(), reader.value(node))


@reads("HardSigmoid")
def hard_sigmoid(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """min(max(alpha x + beta, 0), 1): the linear layer before it takes both along."""
    alpha, beta = (float(attributes.get(name, it)) for name, it in (("alpha", 0.2), ("beta", 0.5)))
    value = affine(reader, node, reader.value(node), np.array(alpha), np.array(beta))
    return reader.append_cell_by_cell(node, Clip(0.0, 1.0), value)


def _number(reader: Reader, node: onnx.NodeProto, index: int) -> float:
    if not reader.is_constant(node, index):
        refuse(node, f"its input {index} must be a constant to be carried")
    number = np.asarray(reader.constants[node.input[index]])
    if number.size != 1 or np.isnan(number).any():
        refuse(node, f"its input {index} must be one number to be carried")
    return float(number.reshape(()))


@reads("Softmax")
def softmax(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    features = reader.shapes[value.tensor][-1]
    if len(value.shape) != 1 or attributes.get("axis", -1) not in (1, -1):
        refuse(node, "only over all features can it be carried")
    if features != value.shape[0]:  # an image, flattened: over all of it in whatever order
        count = value.shape
        value = reader.append_where(node, View(count), count, value.cells, value)
    return reader.append_cell_by_cell(node, Activation("softmax"), value)
