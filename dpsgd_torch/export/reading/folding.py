"""Constants that an exporter left as operators, computed before the graph is judged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dpsgd_torch.export.reading.reader import Attributes, Reader, refuse

_LARGEST = 2**26
"""Values of a constant that is computed; a file could ask for more than there is memory."""

_GROWS = ("ConstantOfShape", "Expand", "Range", "Tile")

_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
           "Multinomial")  # fmt: skip


def folded(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """Whether the node's value is constant: if so, it is one of the reader's constants now."""
    if node.op_type == "Constant":
        reader.constants[node.output[0]] = _literal(attributes)
        return True
    if node.op_type == "Shape" and node.input[0] in reader.values:
        shape = (1, *reader.values[node.input[0]].shape)
        window = slice(attributes.get("start", 0), attributes.get("end"))
        reader.constants[node.output[0]] = np.array(shape[window], np.int64)
        return True
    given = [name for name in node.input if name]
    if not given or not all(name in reader.constants for name in given):
        return False
    if node.op_type in _RANDOM:
        refuse(node, "draws numbers; only what is the same every time can be carried")
    for name, value in zip(node.output, _computed(reader, node, given), strict=False):
        reader.constants[name] = value
    return True


def _literal(attributes: Attributes) -> NDArray[Any]:
    value = next(iter(attributes.values()))
    is_tensor = isinstance(value, onnx.TensorProto)
    return numpy_helper.to_array(value) if is_tensor else np.asarray(value)


def _computed(reader: Reader, node: onnx.NodeProto, given: list[str]) -> list[NDArray[Any]]:
    """By ONNX's own reference evaluator, in a graph of this node alone."""
    from onnx.reference import ReferenceEvaluator

    constants = {name: reader.constants[name] for name in given}
    if node.op_type in _GROWS and _wanted(node, constants) > _LARGEST:
        refuse(node, f"makes a constant of more than {_LARGEST:,} values")
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in constants],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=reader.opsets)
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, constants)]


def _wanted(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> float:
    """How many values it would make."""
    numbers = [constants[name].astype(np.float64).reshape(-1) for name in node.input if name]
    if node.op_type == "Range":
        start, limit, delta = (float(each[0]) for each in numbers)
        return abs((limit - start) / delta) if delta else math.inf
    product = float(np.prod(np.maximum(np.abs(numbers[-1]), 1.0)))
    return product * max(numbers[0].size, 1) if len(numbers) > 1 else product
