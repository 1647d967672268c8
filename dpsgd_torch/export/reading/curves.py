"""Functions of one value in the words of ONNX, however many operators they take: one curve.

``Abs``, ``Add`` of 1, ``Div`` of the same value by it are Softsign. Operators are drawn into a
curve as long as all that they read is one value, and numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Convolution, Linear
from dpsgd_torch.export.kinds.curve import ELU, Curve
from dpsgd_torch.export.reading.pending import TRUTHS, Pending
from dpsgd_torch.export.reading.reader import Attributes, Reader, refuse

_BEGIN = (
    "Abs", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "Log", "Mish", "Pow",
    "Reciprocal", "Round", "Selu", "Shrink", "Sign", "Sin", "Softplus", "Softsign", "Sqrt",
    "ThresholdedRelu", "Where", *TRUTHS,
)  # fmt: skip
"""Those that no layer has."""

_GO_ON = (
    "Add", "Cast", "Clip", "Div", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min",
    "Mul", "Neg", "Relu", "Sigmoid", "Sub", "Tanh",
)  # fmt: skip


_BY_NUMBERS = ("Add", "Div", "Mul", "Neg", "Sub")


def drawn(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> bool:
    """Whether the node's value is pending now."""
    if node.op_type not in (*_BEGIN, *_GO_ON) or node.domain not in ("", "ai.onnx"):
        return False
    given = [name for name in node.input if name]
    computed = [name for name in given if name not in reader.constants]
    goes_on = any(name in reader.pending for name in computed)
    if not computed or not (goes_on or node.op_type in _BEGIN):
        return False
    if any(reader.constants[name].size != 1 for name in given if name in reader.constants):
        return False
    if not all(name in reader.pending or name in reader.values for name in computed):
        return False
    parts = [reader.pending.get(name) or _start(reader, name) for name in computed]
    if not _of_one(parts):
        parts = [_whole(reader, part) for part in parts]
    if not _of_one(parts):
        return False
    numbers = {
        name: reader.constants[name].reshape(()) for name in given if name in reader.constants
    }
    nodes: list[onnx.NodeProto] = []
    for part in parts:
        numbers.update(part.numbers)
        nodes += [each for each in part.nodes if each not in nodes]
    names = frozenset().union(*(part.names for part in parts))
    reader.pending[node.output[0]] = Pending(parts[0].root, names, (*nodes, node), numbers)
    return True


def _of_one(parts: list[Pending]) -> bool:
    first = parts[0].root
    return all(
        part.root.tensor == first.tensor and np.array_equal(part.root.cells, first.cells)
        for part in parts
    )


def noted(reader: Reader, node: onnx.NodeProto) -> None:
    """Of a layer that is a function of one value: how it comes of that, if a curve needs it."""
    computed = [name for name in node.input if name and name not in reader.constants]
    numbers = [name for name in node.input if name in reader.constants]
    if node.op_type not in _GO_ON or len(computed) != 1 or computed[0] not in reader.values:
        return
    if all(reader.constants[name].size == 1 for name in numbers):
        constants = {name: reader.constants[name].reshape(()) for name in numbers}
        reader.origins[node.output[0]] = (node, computed[0], constants)


def _plain(reader: Reader, name: str) -> Pending:
    return Pending(reader.values[name], frozenset([name]), (), {})


def _start(reader: Reader, name: str) -> Pending:
    """From what an activation alone reads, if that is what is read: rounded once, not twice.

    And from before numbers that scale or shift, unless a layer with weights takes those along.
    """
    part = plain = _plain(reader, name)
    while _comes_of(reader, part, _BY_NUMBERS):
        part = _before(reader, part)
    if part.root.tensor and isinstance(reader.layers[part.root.tensor - 1], Linear | Convolution):
        part = plain
    return _before(reader, part) if _comes_of(reader, part, ("Sigmoid", "Tanh")) else part


def _comes_of(reader: Reader, part: Pending, operators: tuple[str, ...]) -> bool:
    name = next(iter(part.names))
    return name in reader.origins and reader.origins[name][0].op_type in operators


def _before(reader: Reader, part: Pending) -> Pending:
    """The same with one operator more, from what its root comes of."""
    name = next(iter(part.names))
    node, root, numbers = reader.origins[name]
    nodes = (node, *part.nodes)
    return Pending(reader.values[root], frozenset([root]), nodes, {**numbers, **part.numbers})


def _whole(reader: Reader, part: Pending) -> Pending:
    """From the last tensor that is no function of one value."""
    while len(part.names) == 1 and next(iter(part.names)) in reader.origins:
        part = _before(reader, part)
    return part


def settled(reader: Reader, name: str) -> None:
    """A layer for what is pending: something other than a curve reads it."""
    pending = reader.pending.pop(name)
    last = pending.nodes[-1]
    if pending.is_truth:
        refuse(last, "cannot be carried further but as part of a function of one value")
    told = last.op_type if len(pending.nodes) == 1 else " and ".join(_few(pending))
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in last.attribute}
    if told == ELU and attributes.get("alpha", 1.0) != 1.0:
        told = "Elu of another alpha than 1"
    layer = Curve(_function(reader, pending), told, last.name)
    reader.values[name] = reader.append_cell_by_cell(last, layer, pending.root)


def _few(pending: Pending) -> list[str]:
    names = list(dict.fromkeys(node.op_type for node in pending.nodes))
    return [*names[:-1], names[-1]][-3:]


def _function(reader: Reader, pending: Pending) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """By ONNX's own reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    info = onnx.helper.make_value_info
    names = sorted(pending.names | pending.numbers.keys())
    graph = onnx.helper.make_graph(
        list(pending.nodes), "curve",
        [info(name, onnx.TypeProto()) for name in names],
        [info(pending.nodes[-1].output[0], onnx.TypeProto())],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=reader.opsets)
    evaluator = ReferenceEvaluator(model)

    def function(x: NDArray[Any]) -> NDArray[Any]:
        given = np.asarray(x, np.float32)
        feeds: dict[str, Any] = {**pending.numbers, **dict.fromkeys(pending.names, given)}
        with np.errstate(all="ignore"):
            return np.asarray(next(iter(evaluator.run(None, feeds))), np.float32).reshape(x.shape)

    return function
