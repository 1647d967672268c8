"""Means and maxima over an image's sides: ReduceMean is MEAN, the pools are pools of one window."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Pooling
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reading.reader import Attributes, Reader, reads, refuse
from dpsgd_torch.export.reading.values import Value, memory_shape


@reads("GlobalAveragePool", "GlobalMaxPool")
def global_pool(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    return _whole(reader, node, value, "max" if "Max" in node.op_type else "average")


@reads("ReduceMax")
def maximum(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    axes = _axes(reader, node, value, attributes)
    if axes != tuple(range(1, len(value.shape))):
        refuse(node, f"over axes {axes} of {value.shape}; only over all sides of an image")
    made = _whole(reader, node, value, "max")
    return made if attributes.get("keepdims", 1) else made.moved(made.cells.reshape(-1))


@reads("ReduceMean")
def mean(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    axes = _axes(reader, node, value, attributes)
    if not axes or 0 in axes or not _is_image(reader, value):
        refuse(
            node,
            f"over axes {axes} of {value.shape}; only over sides of an image, channels before "
            "height and width",
        )
    sides = len(value.shape) - 1
    layer = Mean(tuple(axis - 1 + (2 - sides) for axis in axes), keepdims=True)
    wide = tuple(1 if axis in axes else side for axis, side in enumerate(value.shape))
    made = reader.append(node, layer, wide, value)
    return made if attributes.get("keepdims", 1) else made.moved(np.squeeze(made.cells, axes))


def _is_image(reader: Reader, value: Value) -> bool:
    return value.is_natural and reader.shapes[value.tensor] == memory_shape(value.shape)


def _whole(reader: Reader, node: onnx.NodeProto, value: Value, kind: Any) -> Value:
    if len(value.shape) == 1 or not _is_image(reader, value):
        refuse(node, f"on {value.shape}; needs an image, channels before height and width")
    height, width, channels = memory_shape(value.shape)
    shape = (channels, *[1] * (len(value.shape) - 1))
    return reader.append(node, Pooling(kind, Window((height, width))), shape, value)


def _axes(
    reader: Reader, node: onnx.NodeProto, value: Value, attributes: Attributes
) -> tuple[int, ...]:
    """Of one example."""
    axes: NDArray[Any] = np.array(attributes.get("axes", ()), np.int64)
    if len(node.input) > 1 and node.input[1]:
        if not reader.is_constant(node, 1):
            refuse(node, "its axes must be constant to be carried")
        axes = np.asarray(reader.constants[node.input[1]]).reshape(-1)
    return tuple(sorted(int(axis) % (len(value.shape) + 1) - 1 for axis in axes))
