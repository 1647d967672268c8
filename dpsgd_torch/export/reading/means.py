"""Means and maxima over an image's sides: ReduceMean is MEAN, the pools are pools of one window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Pooling
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reading.constants import affine
from dpsgd_torch.export.reading.order import as_image
from dpsgd_torch.export.reading.reader import Attributes, Reader, reads, refuse
from dpsgd_torch.export.reading.values import Value, memory_shape


@reads("GlobalAveragePool", "GlobalMaxPool")
def global_pool(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    return _whole(reader, node, value, "max" if "Max" in node.op_type else "average")


@reads("ReduceMax")
def maximum(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    axes, value, turned = _spatial(reader, node, attributes)
    if axes != tuple(range(1, len(turned.shape))):
        refuse(node, f"over axes {axes} of {value.shape}; only over all sides of an image")
    return _kept(attributes, value, _axes(reader, node, value, attributes),
                 _whole(reader, node, turned, "max"))  # fmt: skip


@reads("ReduceMean")
def mean(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    axes, value, turned = _spatial(reader, node, attributes)
    sides = len(turned.shape) - 1
    layer = Mean(tuple(axis - 1 + (2 - sides) for axis in axes), keepdims=True)
    wide = tuple(1 if axis in axes else side for axis, side in enumerate(turned.shape))
    made = reader.append(node, layer, wide, turned)
    return _kept(attributes, value, _axes(reader, node, value, attributes), made)


@reads("ReduceSum")
def total(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """The mean as many times."""
    value = reader.value(node)
    made = mean(reader, node, attributes)
    count = math.prod(value.shape[axis] for axis in _axes(reader, node, value, attributes))
    return affine(reader, node, made, np.array(float(count)), np.array(0.0))


def _spatial(
    reader: Reader, node: onnx.NodeProto, attributes: Attributes
) -> tuple[tuple[int, ...], Value, Value]:
    """(axes, the value, the same as an image of which these are sides)."""
    value = reader.value(node)
    axes = _axes(reader, node, value, attributes)
    if not axes or min(axes) < 0 or len(axes) == len(value.shape):
        refuse(
            node,
            f"over axes {axes} of {value.shape}; only over sides of an image, or over its channels",
        )
    if 0 not in axes:
        return axes, value, _image(reader, node, value)
    rest = [axis for axis in range(len(value.shape)) if axis not in axes]
    cells = value.cells.transpose([*rest, *axes])
    count = math.prod(value.shape[axis] for axis in rest)
    return (1,), value, _image(reader, node, value.moved(cells.reshape(count, -1)))


def _kept(attributes: Attributes, value: Value, axes: tuple[int, ...], made: Value) -> Value:
    """What is made in the shape that ONNX gives it."""
    keeps = attributes.get("keepdims", 1)
    wide = [1 if axis in axes else side for axis, side in enumerate(value.shape)]
    left = [side for axis, side in enumerate(value.shape) if axis not in axes]
    return made.moved(made.cells.reshape(wide if keeps else left))


def _image(reader: Reader, node: onnx.NodeProto, value: Value) -> Value:
    if len(value.shape) not in (2, 3):
        refuse(node, f"on {value.shape}; needs an image, channels before height and width")
    return as_image(reader, node, value)


def _whole(reader: Reader, node: onnx.NodeProto, value: Value, kind: Any) -> Value:
    value = _image(reader, node, value)
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
