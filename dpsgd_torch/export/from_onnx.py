"""ONNX → the graph of float layers, channels last; what cannot be carried is refused by name."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dpsgd_torch.errors import ExportError, shown, told
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    Graph,
    Layer,
    Linear,
    Padding,
    Pooling,
)
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.program import Window

Attributes = dict[str, Any]
_NO_ONNX = (
    ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError
)  # fmt: skip


def from_onnx(model: onnx.ModelProto) -> Graph:
    """The model as a graph of layers on one example.

    Channels come last here and first in ONNX: kernels are transposed, and the columns of the
    first linear layer after a Flatten permuted, so that nothing is left to transpose at run time.

    Raises:
        ExportError: an operator, attribute or shape that cannot be carried further.
    """
    with _as_refusal("model"):
        reader = _Reader(model)
    for node in model.graph.node:
        with _as_refusal(f"operator = {shown(node.op_type)}"):
            reader.read(node)
    return reader.finish()


@contextlib.contextmanager
def _as_refusal(name: str) -> Iterator[None]:
    """Inputs, attributes or shapes that no ONNX operator has, as damaged files hold them."""
    try:
        yield
    except _NO_ONNX as error:
        raise ExportError(
            f"{name}: is no valid ONNX ({told(error)}); onnx.checker.check_model says more"
        ) from error


@dataclass(frozen=True)
class _Value:
    """What an ONNX name stands for: a tensor of the graph and its shape there, channels first.

    ``image``: the shape that a Flatten flattened, where its values are not yet permuted.
    """

    tensor: int
    shape: tuple[int, ...]
    image: tuple[int, ...] | None = None


class _Reader:
    """Walks the nodes; ``shape`` is ONNX's, of one example, channels first."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
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
        if len(dims) not in (2, 4) or min(dims[1:]) < 1:
            raise ExportError(
                f"input: has shape {dims}; only (1, features) and (1, channels, height, width) are "
                "carried further"
            )
        self.end = graph.output[0].name
        self.values = {inputs[0].name: _Value(0, tuple(dims[1:]))}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses[self.end] += 1
        self.layers: list[Layer] = []
        self.sources: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self.shapes = [_last(tuple(dims[1:]))]

    def read(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            value = next(iter(attributes.values()))
            tensor = isinstance(value, onnx.TensorProto)
            self.constants[node.output[0]] = (
                numpy_helper.to_array(value) if tensor else np.asarray(value)
            )
            return
        readers: dict[str, Callable[[onnx.NodeProto, Attributes], _Value]] = {
            "Gemm": self._gemm, "MatMul": self._matmul, "Add": self._add, "Conv": self._conv,
            "MaxPool": self._pool, "AveragePool": self._pool, "Flatten": self._flatten,
            "Reshape": self._flatten, "Softmax": self._softmax,
        }  # fmt: skip
        kinds = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "logistic"}
        if node.op_type in kinds:
            value = self._value(node)
            made = self._append(Activation(kinds[node.op_type]), value.shape, value)  # type: ignore[arg-type]
        elif node.op_type in readers:
            made = readers[node.op_type](node, attributes)
        elif node.op_type in ("Dropout", "Identity"):
            made = self._value(node)
        else:
            self._refuse_unknown(node, [*readers, *kinds])
        self.values[node.output[0]] = made

    def finish(self) -> Graph:
        end = self.values.get(self.end)
        if end is None or not end.tensor:
            raise ExportError("model: its output is not made by a layer from its input")
        if end.image:
            self._need_no_order(end, "the output")
        return self._needed(end.tensor)

    def _needed(self, end: int) -> Graph:
        """Without the layers that the output does not depend on."""
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
        )

    def _refuse_unknown(self, node: onnx.NodeProto, kinds: list[str]) -> NoReturn:
        known = ", ".join(sorted([*kinds, "Dropout", "Identity"]))
        raise ExportError(
            f"operator = {node.op_type}: cannot be carried further; known are {known}"
        )

    def _value(self, node: onnx.NodeProto, index: int = 0) -> _Value:
        """Its input, which must be computed."""
        name = node.input[index]
        if name not in self.values:
            what = "a constant" if name in self.constants else f"{shown(name)}, which nothing makes"
            raise ExportError(
                f"operator = {node.op_type}: its input {index} is {what}; only what is computed "
                "from the model's input can be carried there"
            )
        return self.values[name]

    def _append(self, layer: Layer, shape: tuple[int, ...], *read: _Value) -> _Value:
        """``shape``: of what it makes, as in ONNX; an order not yet permuted stays so."""
        self.layers.append(layer)
        self.sources.append(tuple(value.tensor for value in read))
        image = read[0].image if shape == read[0].shape else None
        self.shapes.append(shape if image else _last(shape))
        self.names.append("")
        return _Value(len(self.layers), shape, image)

    def _constant(self, node: onnx.NodeProto, index: int) -> NDArray[np.float32]:
        if len(node.input) <= index or node.input[index] not in self.constants:
            raise ExportError(
                f"operator = {node.op_type}: its input {index} must be a constant to be carried"
            )
        values = np.asarray(self.constants[node.input[index]], np.float32)
        if not np.isfinite(values).all():
            raise ExportError(
                f"operator = {node.op_type}: its constant {node.input[index]} holds values that "
                "are not finite; train the model again with a lower learning rate"
            )
        return values

    def _bias(self, node: onnx.NodeProto, size: int) -> NDArray[np.float32]:
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(size, np.float32)
        bias = self._constant(node, 2)
        if bias.size not in (1, size):
            raise ExportError(
                f"operator = {node.op_type}: has {size} outputs and a bias of {bias.size}"
            )
        return np.broadcast_to(bias.reshape(-1), (size,))

    def _gemm(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        _only(node, attributes, alpha=1.0, beta=1.0, transA=0)
        weights = self._constant(node, 1)
        if not attributes.get("transB", 0):
            weights = weights.T
        return self._linear(node, weights, self._bias(node, len(weights)))

    def _matmul(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        weights = self._constant(node, 1)
        if weights.ndim != 2:
            raise ExportError(f"operator = MatMul: by a constant of {weights.ndim} axes; needs two")
        return self._linear(node, weights.T, np.zeros(weights.shape[1], np.float32))

    def _linear(
        self, node: onnx.NodeProto, weights: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> _Value:
        value = self._value(node)
        if len(value.shape) != 1:
            raise ExportError(f"operator = Gemm: on {value.shape}; flatten it first")
        if weights.shape[1] != value.shape[0]:
            raise ExportError(
                f"operator = Gemm: takes {weights.shape[1]} features and is given {value.shape[0]}"
            )
        if value.image:
            columns = np.arange(weights.shape[1]).reshape(value.image)
            weights = weights[:, columns.transpose(1, 2, 0).reshape(-1)]
        layer = Linear(np.ascontiguousarray(weights), bias)
        self._append(layer, (len(weights),), value)
        return _Value(len(self.layers), (len(weights),))

    def _add(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        places = [i for i, name in enumerate(node.input) if name in self.constants]
        if not places:
            return self._sum(node)
        size = self.constants[node.input[places[0]]].size if len(places) == 1 else 0
        value = self._value(node, 1 - places[0])
        last = self.layers[value.tensor - 1] if value.tensor else None
        alone = self.uses[node.input[1 - places[0]]] == 1
        if not isinstance(last, Linear) or size != len(last.bias) or not alone:
            raise ExportError("operator = Add: only as the bias of a MatMul can it be carried")
        bias = last.bias + self._constant(node, places[0]).reshape(-1)
        self.layers[value.tensor - 1] = Linear(last.weights, bias)
        return value

    def _sum(self, node: onnx.NodeProto) -> _Value:
        """Of two tensors of one shape."""
        first, second = self._value(node), self._value(node, 1)
        if first.shape != second.shape or first.image != second.image:
            raise ExportError(
                f"operator = Add: of shapes {first.shape} and {second.shape}; only two of one "
                "shape, read in one order, are carried further"
            )
        return self._append(Add(), first.shape, first, second)

    def _conv(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        weights = self._constant(node, 1)
        if weights.ndim != 4:
            raise ExportError(f"operator = Conv: of {weights.ndim - 2} axes; only two are carried")
        value = self._value(node)
        window = self._window(node, value, {**attributes, "kernel_shape": weights.shape[2:]})
        groups = int(attributes.get("group", 1))
        if weights.shape[1] * groups != value.shape[0] or len(weights) % groups:
            raise ExportError(
                f"operator = Conv: {len(weights)} kernels of {weights.shape[1]} channels in "
                f"{groups} groups do not fit an image of {value.shape[0]} channels"
            )
        layer = Convolution(
            np.ascontiguousarray(weights.transpose(0, 2, 3, 1)),
            self._bias(node, len(weights)),
            window,
            groups,
        )
        return self._append(layer, (len(weights), *self._moved(node, value, window)), value)

    def _pool(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        _only(node, attributes, ceil_mode=0, storage_order=0)
        if len(node.output) > 1:
            raise ExportError(f"operator = {node.op_type}: its indices cannot be carried")
        value = self._value(node)
        window = self._window(node, value, attributes)
        for k, pads in zip(window.kernel, window.padding, strict=True):
            if max(pads) >= k:
                raise ExportError(
                    f"operator = {node.op_type}: pads {window.padding} leave windows with nothing "
                    f"in them; each must be less than the kernel, {window.kernel}"
                )
        kind = "max" if node.op_type == "MaxPool" else "average"
        if attributes.get("count_include_pad", 0) and any(map(any, window.padding)):
            (top, bottom), (left, right) = window.padding
            c, h, w = value.shape
            padded = (c, h + top + bottom, w + left + right)
            value = self._append(Padding(window.padding), padded, value)
            window = Window(window.kernel, window.stride)
        shape = (value.shape[0], *self._moved(node, value, window))
        return self._append(Pooling(kind, window), shape, value)  # type: ignore[arg-type]

    def _window(self, node: onnx.NodeProto, value: _Value, attributes: Attributes) -> Window:
        if len(value.shape) != 3:
            raise ExportError(f"operator = {node.op_type}: on {value.shape}; needs an image")
        _only(node, attributes, dilations=[1, 1])
        kernel = tuple(attributes["kernel_shape"])
        auto = attributes.get("auto_pad", b"NOTSET").decode()
        if auto not in ("NOTSET", "VALID"):
            raise ExportError(
                f"operator = {node.op_type}: auto_pad={auto} cannot be carried; use explicit pads"
            )
        top, left, bottom, right = (
            attributes.get("pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0,) * 4
        )
        if min(top, left, bottom, right) < 0:
            raise ExportError(f"operator = {node.op_type}: pads must not be negative")
        stride = tuple(attributes.get("strides", (1, 1)))
        return Window(kernel, stride, ((top, bottom), (left, right)))

    def _moved(self, node: onnx.NodeProto, value: _Value, window: Window) -> tuple[int, int]:
        sizes = []
        for size, k, stride, pads in zip(
            value.shape[1:], window.kernel, window.stride, window.padding, strict=True
        ):
            sizes.append((size + sum(pads) - k) // stride + 1)
        if min(sizes) < 1:
            raise ExportError(f"operator = {node.op_type}: its kernel is larger than its input")
        return sizes[0], sizes[1]

    def _flatten(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        _only(node, attributes, axis=1)
        value = self._value(node)
        flat = math.prod(value.shape)
        if node.op_type == "Reshape":
            wanted = tuple(self.constants[node.input[1]].tolist())
            if wanted not in ((1, flat), (1, -1), (-1, flat), (0, flat), (0, -1)):
                raise ExportError(
                    f"operator = Reshape: to {shown(wanted)}; only flattening can be carried "
                    "further"
                )
        if len(value.shape) == 3:
            return _Value(value.tensor, (flat,), value.shape)
        return value

    def _softmax(self, node: onnx.NodeProto, attributes: Attributes) -> _Value:
        value = self._value(node)
        if len(value.shape) != 1 or attributes.get("axis", -1) not in (1, -1):
            raise ExportError("operator = Softmax: only over all features can it be carried")
        return self._append(Activation("softmax"), value.shape, value)

    def _need_no_order(self, value: _Value, where: str) -> None:
        channels, height, width = value.image or (1, 1, 1)
        if channels > 1 and height * width > 1:
            raise ExportError(
                f"operator = Flatten: reaches {where} without a linear layer, and would come out "
                "in another order; drop it, or end with a linear layer"
            )


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _only(node: onnx.NodeProto, attributes: Attributes, **allowed: Any) -> None:
    for name, value in allowed.items():
        given = attributes.get(name, value)
        if (list(given) if isinstance(value, list) else given) != value:
            raise ExportError(
                f"operator = {node.op_type}: {name}={given} cannot be carried further; only {value}"
            )


def to_channels_last(inputs: NDArray[Any]) -> NDArray[Any]:
    """(batch, channels, height, width) → (batch, height, width, channels); others as they are."""
    return np.ascontiguousarray(np.moveaxis(inputs, 1, -1)) if inputs.ndim == 4 else inputs
