"""Normalization by an example's own statistics, in one operator or in the words of exporters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.kinds.group_norm import GroupNorm, Groups
from dpsgd_torch.export.reading.reader import Attributes, Reader, reads, refuse
from dpsgd_torch.export.reading.values import Value

_BY_CHANNEL = 21  # the opset since which GroupNormalization has a gain a channel, not a group


@reads("LayerNormalization")
def layer_normalization(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    axis = int(attributes.get("axis", -1)) % (len(value.shape) + 1)
    if axis == 0:
        refuse(node, "axis=0 would mix examples")
    _refuse_statistics(node)
    together = value.shape[axis - 1 :]
    count = math.prod(together)
    cells = value.cells.reshape(-1, count)
    starts = cells.min(axis=1, keepdims=True)
    order = cells[0] - starts[0]
    if not (cells - starts == order).all() or not np.array_equal(np.sort(order), range(count)):
        refuse(
            node,
            f"over the last axes {together} of {value.shape}, whose values lie apart; over the "
            "channels or over all can it be carried",
        )
    gain, bias = (np.empty(count, np.float32) for _ in range(2))
    gain[order] = _over(node, reader.constant(node, 1), together)
    has_bias = len(node.input) > 2 and node.input[2]
    bias[order] = _over(node, reader.constant(node, 2), together) if has_bias else 0.0
    groups = Groups(len(cells), 1, 1, count)
    return _normed(reader, node, attributes, value, groups, gain, bias)


@reads("InstanceNormalization")
def instance_normalization(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """Of each slice along the first axis: of groups of channels, if a Reshape made those."""
    value = reader.value(node)
    groups = _groups(reader, node, value, value.shape[0])
    gain, bias = (
        np.repeat(_over(node, reader.constant(node, index), value.shape[:1]), groups.depth)
        for index in (1, 2)
    )
    return _normed(reader, node, attributes, value, groups, gain, bias)


@reads("GroupNormalization")
def group_normalization(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value, count = reader.value(node), int(attributes.get("num_groups", 0))
    channels = value.shape[0]
    if count < 1 or channels % count:
        refuse(node, f"num_groups={count} does not divide {channels} channels")
    groups = _groups(reader, node, Value(value.tensor, value.cells.reshape(count, -1)), count)
    opset = next(each.version for each in reader.opsets if each.domain in ("", "ai.onnx"))
    told = (channels,) if opset >= _BY_CHANNEL else (count,)
    column = (-1, *[1] * (len(value.shape) - 1))
    gain, bias = (
        _by_channel(
            np.repeat(_over(node, reader.constant(node, index), told), channels // told[0]).reshape(
                column
            ),
            value,
            groups,
        )
        for index in (1, 2)
    )
    if gain is None or bias is None:
        refuse(node, f"over {value.shape}, read in another order; normalize before moving axes")
    return _normed(reader, node, attributes, value, groups, gain, bias)


def scaled(reader: Reader, node: onnx.NodeProto) -> Value | None:
    """A Mul or Add of constants to a norm that nobody else reads, which takes them as its own."""
    if node.op_type not in ("Mul", "Add") or len(node.input) != 2:
        return None
    places = [index for index in (0, 1) if reader.is_constant(node, index)]
    if len(places) != 1 or node.input[1 - places[0]] not in reader.values:
        return None
    value = reader.value(node, 1 - places[0])
    layer = reader.layers[value.tensor - 1] if value.tensor else None
    if not isinstance(layer, GroupNorm) or not reader.alone(node, 1 - places[0]):
        return None
    factor = _by_channel(reader.constant(node, places[0]), value, layer.groups)
    if factor is None:
        return None
    gain, bias = (
        (layer.gain * factor, layer.bias * factor)
        if node.op_type == "Mul"
        else (layer.gain, layer.bias + factor)
    )
    reader.layers[value.tensor - 1] = GroupNorm(layer.groups, gain, bias, layer.epsilon)
    return value


def _by_channel(
    given: NDArray[np.float32], value: Value, groups: Groups
) -> NDArray[np.float32] | None:
    """(channels,) of what is broadcast over a value; None where that is not one a channel."""
    try:
        whole = np.broadcast_to(given, (1, *value.shape))[0]
    except ValueError:
        return None
    where_they_lie = np.empty(value.cells.size, np.float32)
    where_they_lie[value.cells] = whole
    rows = where_they_lie.reshape(-1, groups.groups * groups.depth)
    return rows[0] if (rows == rows[0]).all() else None


def _groups(reader: Reader, node: onnx.NodeProto, value: Value, count: int) -> Groups:
    """How the slices along the first axis lie in the tensor: channels apart, or run by run."""
    size = value.cells.size
    cells = np.sort(value.cells.reshape(count, -1), axis=1)
    channels = reader.shapes[value.tensor][-1]
    for width in (channels, size):
        if width % count:
            continue
        order = np.arange(size).reshape(-1, count, width // count)
        if np.array_equal(order.transpose(1, 0, 2).reshape(count, -1), cells):
            return Groups(1, size // width, count, width // count)
    return refuse(
        node, f"over {value.shape}, whose groups are no channels; normalize before moving axes"
    )


def _normed(
    reader: Reader,
    node: onnx.NodeProto,
    attributes: Attributes,
    value: Value,
    groups: Groups,
    gain: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> Value:
    epsilon = float(attributes.get("epsilon", 1e-5))
    if not 0 <= epsilon < math.inf:
        refuse(node, f"epsilon={epsilon} cannot be carried; a number of 0 or more can")
    return reader.append_cell_by_cell(node, GroupNorm(groups, gain, bias, epsilon), value)


def _refuse_statistics(node: onnx.NodeProto) -> None:
    if any(node.output[1:]):
        refuse(node, "its mean and deviation cannot be carried as outputs")


def _over(node: onnx.NodeProto, given: NDArray[np.float32], shape: tuple[int, ...]) -> Any:
    try:
        return np.broadcast_to(given, shape).reshape(-1)
    except ValueError:
        refuse(node, f"a gain or bias of {given.shape} does not fit {shape}")
