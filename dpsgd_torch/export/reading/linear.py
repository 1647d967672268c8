"""Gemm and MatMul by constants, and the Add that is their bias."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Convolution, Linear
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.reading.reader import Attributes, Reader, only, reads, refuse
from dpsgd_torch.export.reading.values import Value


@reads("Gemm")
def gemm(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    only(node, attributes, transA=0)
    weights = reader.constant(node, 1)
    if weights.ndim != 2:
        refuse(node, f"by a constant of {weights.ndim} axes; needs two")
    if not attributes.get("transB", 0):
        weights = weights.T
    alpha, beta = (np.float32(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    bias = reader.bias(node, len(weights))
    return _linear(reader, node, alpha * weights, beta * bias)


@reads("MatMul")
def matmul(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    weights = reader.constant(node, 1)
    if weights.ndim != 2:
        refuse(node, f"by a constant of {weights.ndim} axes; needs two")
    return _linear(reader, node, weights.T, np.zeros(weights.shape[1], np.float32))


def _linear(
    reader: Reader, node: onnx.NodeProto, weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> Value:
    value = reader.value(node)
    if len(value.shape) != 1:
        refuse(node, f"on {value.shape}; flatten it first")
    if weights.shape[1] != value.shape[0]:
        refuse(node, f"takes {weights.shape[1]} features and is given {value.shape[0]}")
    where_they_lie = np.empty_like(weights)
    where_they_lie[:, value.cells] = weights
    return reader.append(node, Linear(where_they_lie, bias), (len(weights),), value)


@reads("Add")
def add(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    places = [i for i in range(len(node.input)) if reader.is_constant(node, i)]
    if not places:
        return _sum(reader, node)
    if len(places) > 1:
        refuse(node, "of two constants; only as the bias of a MatMul can it be carried")
    value = reader.value(node, 1 - places[0])
    layer = reader.layers[value.tensor - 1] if value.tensor else None
    bias = reader.constant(node, places[0])
    if not isinstance(layer, Linear | Convolution) or not reader.alone(node, 1 - places[0]):
        refuse(node, "only as the bias of a MatMul can it be carried")
    if not _is_bias(bias, value.shape):
        refuse(
            node,
            f"of a constant of shape {bias.shape} to {value.shape}; only as the bias of a MatMul "
            "or Conv, one number a channel, can it be carried",
        )
    changed = layer.bias + bias.reshape(-1)
    if isinstance(layer, Linear):
        reader.layers[value.tensor - 1] = Linear(layer.weights, changed)
    else:
        reader.layers[value.tensor - 1] = Convolution(
            layer.weights, changed, layer.window, layer.groups
        )
    return value


def _is_bias(bias: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    """Whether it adds one number to each channel: (channels, 1, …), a batch axis before it or not.

    A single number is added to every channel.
    """
    if bias.size == 1:
        return True
    axes = (1, *shape)
    if bias.ndim > len(axes):
        return False
    padded = (1,) * (len(axes) - bias.ndim) + bias.shape
    return padded == (1, shape[0], *[1] * (len(shape) - 1))


def _sum(reader: Reader, node: onnx.NodeProto) -> Value:
    first, second = reader.value(node), reader.value(node, 1)
    if first.shape != second.shape or not np.array_equal(first.cells, second.cells):
        refuse(
            node,
            f"of shapes {first.shape} and {second.shape}; only two of one shape, read in one "
            "order, are carried further",
        )
    return reader.append_cell_by_cell(node, Add(), first, second)
