"""The graph as it is read: values by their ONNX names, constants, and layers so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dpsgd_torch.errors import ExportError, shown
from dpsgd_torch.export.graph import Graph, Layer
from dpsgd_torch.export.reading.pending import Pending
from dpsgd_torch.export.reading.values import Value, memory_shape, natural

Attributes = dict[str, Any]

_RANKS = (2, 3, 4)
_MOST_INTEGERS = 16
OF_EXAMPLES = "of examples of a batch cannot be carried further; only of features"
_LONGEST = 60  # characters of a name in a message


class Reader:
    """What the readers of operators read from and add to."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.opsets = list(model.opset_import)
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        inputs = [entry for entry in graph.input if entry.name not in self.constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ExportError(
                f"model: has {len(inputs)} inputs and {len(graph.output)} outputs; only models of "
                "one input and one output are carried further"
            )
        dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
        if len(dims) not in _RANKS or min(dims[1:]) < 1:
            raise ExportError(
                f"input: has shape {dims}; only (1, features), (1, channels, length) and (1, "
                "channels, height, width) are carried further"
            )
        shape = tuple(dims[1:])
        self.end = graph.output[0].name
        self.values = {inputs[0].name: Value(0, natural(shape))}
        self.given_order = natural(shape)
        self.as_given = False
        self.pending: dict[str, Pending] = {}
        self.origins: dict[str, tuple[onnx.NodeProto, str, dict[str, NDArray[Any]]]] = {}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses[self.end] += 1
        self.layers: list[Layer] = []
        self.sources: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self.shapes = [memory_shape(shape)]

    def value(self, node: onnx.NodeProto, index: int = 0) -> Value:
        """The node's input, which must be computed."""
        name = node.input[index]
        if name not in self.values:
            what = "a constant" if name in self.constants else f"{shown(name)}, which nothing makes"
            refuse(
                node,
                f"its input {index} is {what}; only what is computed from the model's input can "
                "be carried there",
            )
        return self.values[name]

    def rank(self, name: str) -> int:
        """How many axes ONNX gives what is computed, the batch with them; 0: not known."""
        value = self.pending[name].root if name in self.pending else self.values.get(name)
        return 1 + len(value.shape) if value else 0

    def constant(self, node: onnx.NodeProto, index: int) -> NDArray[np.float32]:
        """The node's input, which must be constant and finite, in float32."""
        if not self.is_constant(node, index):
            refuse(node, f"its input {index} must be a constant to be carried")
        values = np.asarray(self.constants[node.input[index]], np.float32)
        if not np.isfinite(values).all():
            refuse(
                node,
                f"its constant {node.input[index]} holds values that are not finite; train the "
                "model again with a lower learning rate",
            )
        return values

    def integers(self, node: onnx.NodeProto, index: int) -> list[int]:
        """The node's input, which must be constant, and few whole numbers."""
        if not self.is_constant(node, index):
            refuse(node, f"its input {index} must be a constant to be carried")
        found = np.asarray(self.constants[node.input[index]])
        if found.dtype.kind not in "iu" or found.size > _MOST_INTEGERS:
            refuse(node, f"its input {index} must be at most {_MOST_INTEGERS} whole numbers")
        return [int(number) for number in found.reshape(-1)]

    def is_constant(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether it has such an input, and that is a constant."""
        return len(node.input) > index and node.input[index] in self.constants

    def bias(self, node: onnx.NodeProto, size: int) -> NDArray[np.float32]:
        """The node's third input as a vector; zeros where it has none."""
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(size, np.float32)
        bias = self.constant(node, 2)
        if bias.size not in (1, size):
            refuse(node, f"has {size} outputs and a bias of {bias.size}")
        return np.broadcast_to(bias.reshape(-1), (size,))

    def append(
        self, node: onnx.NodeProto, layer: Layer, shape: tuple[int, ...], *read: Value
    ) -> Value:
        """A layer that makes a tensor of ONNX's ``shape``, which lies channels last."""
        return self.append_where(node, layer, memory_shape(shape), natural(shape), *read)

    def append_cell_by_cell(self, node: onnx.NodeProto, layer: Layer, *read: Value) -> Value:
        """A layer whose values lie where those that it reads lie, in whatever order."""
        shape, cells = self.shapes[read[0].tensor], read[0].cells
        return self.append_where(node, layer, shape, cells, *read)

    def append_where(
        self,
        node: onnx.NodeProto,
        layer: Layer,
        memory: tuple[int, ...],
        cells: NDArray[np.intp],
        *read: Value,
    ) -> Value:
        """A layer that makes a tensor of shape ``memory``; ``cells``: where ONNX's values lie."""
        self.layers.append(layer)
        self.sources.append(tuple(value.tensor for value in read))
        self.shapes.append(memory)
        self.names.append(node.name)
        return Value(len(self.layers), cells)

    def alone(self, node: onnx.NodeProto, index: int = 0) -> bool:
        """Whether nobody else reads the tensor that the node's input is of, by whatever name."""
        tensor = self.value(node, index).tensor
        names = (name for name, value in self.values.items() if value.tensor == tensor)
        return all(self.uses[name] <= 1 for name in names)

    def finish(self) -> Graph:
        """The layers that the output depends on."""
        end = self.values.get(self.end)
        if end is None or not end.tensor:
            raise ExportError("model: its output is not made by a layer from its input")
        return self._needed(end.tensor)

    def _needed(self, end: int) -> Graph:
        needed = {end}
        for tensor in range(end, 0, -1):
            if tensor in needed:
                needed.update(self.sources[tensor - 1])
        order = sorted(needed | {0})
        place = {tensor: index for index, tensor in enumerate(order)}
        kept = [tensor - 1 for tensor in order[1:]]
        return Graph(
            tuple(self.layers[i] for i in kept),
            tuple(self.shapes[tensor] for tensor in order),
            tuple(tuple(place[source] for source in self.sources[i]) for i in kept),
            tuple(self.names[i] for i in kept),
            self.as_given,
        )


Read = Callable[[Reader, onnx.NodeProto, Attributes], Value]

READERS: dict[str, Read] = {}
"""ONNX operator → the function that reads it."""


def reads(*operators: str) -> Callable[[Read], Read]:
    """Register the reader of some operators."""

    def register(read: Read) -> Read:
        READERS.update(dict.fromkeys(operators, read))
        return read

    return register


def called(node: onnx.NodeProto) -> str:
    """An operator in messages: its type, and its node's name where it has one."""
    named = f" ({_short(node.name)})" if node.name else ""
    return f"operator = {_short(node.op_type)}{named}"


def _short(name: str) -> str:
    """Names that are plain words stay so."""
    plain = name.isascii() and name.isprintable() and len(name) <= _LONGEST
    return name if plain else shown(name)


def refuse(node: onnx.NodeProto, why: str) -> NoReturn:
    """Say why it cannot be carried, and what to do."""
    raise ExportError(f"{called(node)}: {why}")


def of_features(node: onnx.NodeProto, axis: int, value: Value) -> int:
    """The axis of one example, where ONNX counts the batch as the first."""
    found = int(axis) % (len(value.shape) + 1) - 1
    if found < 0:
        refuse(node, OF_EXAMPLES)
    return found


def only(node: onnx.NodeProto, attributes: Attributes, **allowed: Any) -> None:
    """Refuse attributes of other values than those allowed, which are also what is left out."""
    for name, value in allowed.items():
        given = attributes.get(name, value)
        if (list(given) if isinstance(value, list) else given) != value:
            refuse(node, f"{name}={given} cannot be carried further; only {value}")
