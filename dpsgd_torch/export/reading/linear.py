"""Gemm and MatMul by constants."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Linear
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
    where_they_lie = np.empty(weights.shape, np.float32)
    where_they_lie[:, value.cells] = weights
    return reader.append(node, Linear(where_they_lie, bias), (len(weights),), value)
