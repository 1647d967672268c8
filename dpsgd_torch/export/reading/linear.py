"""Gemm and MatMul by constants."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Convolution, Linear
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reading.order import laid
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
    if all(name in reader.values for name in node.input):
        refuse(
            node,
            "of two computed tensors, as in attention, cannot be carried further; take Conv1d, or "
            "Mul by a Sigmoid of a ReduceMean, in its place",
        )
    weights = reader.constant(node, 1)
    if weights.ndim != 2:
        refuse(node, f"by a constant of {weights.ndim} axes; needs two")
    return _linear(reader, node, weights.T, np.zeros(weights.shape[1], np.float32))


def _linear(
    reader: Reader, node: onnx.NodeProto, weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> Value:
    value = reader.value(node)
    if weights.shape[1] != value.shape[-1]:
        refuse(node, f"takes {weights.shape[1]} features and is given {value.shape[-1]}")
    if len(value.shape) != 1:
        return _each(reader, node, value, weights, bias)
    where_they_lie = np.empty(weights.shape, np.float32)
    where_they_lie[:, value.cells] = weights
    return reader.append(node, Linear(where_they_lie, bias), (len(weights),), value)


def _each(
    reader: Reader,
    node: onnx.NodeProto,
    value: Value,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> Value:
    """Of each step of a sequence, or cell of an image whose channels come last: a 1 × 1 kernel."""
    *front, features = value.shape
    lines = (1, *front) if len(front) == 1 else (front[0], int(np.prod(front[1:])))
    in_rows = np.arange(value.cells.size).reshape(value.shape)
    value = laid(reader, node, value, (*lines, features), in_rows)
    layer = Convolution(np.ascontiguousarray(weights[:, None, None]), bias, Window((1, 1)), 1)
    made = (*lines, len(weights))
    cells = np.arange(int(np.prod(made))).reshape(*front, len(weights))
    return reader.append_where(node, layer, made, cells, value)
