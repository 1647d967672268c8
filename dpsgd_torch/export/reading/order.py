"""Values put in the order in memory in which a layer takes them.

Free of charge, where the input can be declared to lie so, or a layer that makes the values can
make them in another order: rows of a linear layer, kernels of a convolution, through whatever takes
each value or channel by itself. Else they are copied.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Activation, Convolution, Layer, Linear, Pooling
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.affine import Affine
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.curve import Curve
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import LeakyRelu
from dpsgd_torch.export.kinds.transpose import transposition
from dpsgd_torch.export.kinds.view import View
from dpsgd_torch.export.reading.reader import Reader, refuse
from dpsgd_torch.export.reading.values import Value, memory_shape, natural

Places = NDArray[np.intp]

_EACH_BY_ITSELF = (Activation, Pooling, Clip, Curve, HardSwish, LeakyRelu)


def image(reader: Reader, node: onnx.NodeProto, index: int = 0, held: Value | None = None) -> Value:
    """The node's input, channels last."""
    return as_image(reader, node, reader.value(node, index), held)


def as_image(
    reader: Reader, node: onnx.NodeProto, value: Value, held: Value | None = None
) -> Value:
    """The value, channels last."""
    return laid(reader, node, value, memory_shape(value.shape), natural(value.shape), held)


def as_layers_lie(reader: Reader, node: onnx.NodeProto, index: int = 0) -> Value:
    """The same, for whoever reads the name after this node, too."""
    reader.values[node.input[index]] = image(reader, node, index)
    return reader.value(node, index)


def laid(
    reader: Reader,
    node: onnx.NodeProto,
    value: Value,
    memory: tuple[int, ...],
    where: Any,
    held: Value | None = None,
) -> Value:
    """The value, each of it at ``where``, of ONNX's shape, in a tensor of shape ``memory``.

    Another value, which the node reads beside it, stays where it is: ``held``.
    """
    where = np.asarray(where, np.intp)
    still = held.tensor if held else None
    if value.tensor == 0 and _declared(reader, value, memory, where, still):
        return Value(0, where)
    if not np.array_equal(value.cells, where):
        order = np.empty(where.size, np.intp)
        order[value.cells.reshape(-1)] = where.reshape(-1)
        if _remade(reader, value.tensor, order, still):
            value = Value(value.tensor, where)
        else:
            value = _copied(reader, node, value, memory, where, np.argsort(order))
    if reader.shapes[value.tensor] == memory:
        return value
    return reader.append_where(node, View(memory), memory, where, value)


def last(reader: Reader, node: onnx.NodeProto) -> None:
    """Put the output channels last, or as it is where its axes are others."""
    value = reader.values[reader.end]
    if value.is_natural or not value.tensor:
        return
    memory = memory_shape(value.shape) if len(value.shape) < 4 else (value.cells.size,)
    where = natural(value.shape) if len(value.shape) < 4 else np.arange(value.cells.size)
    reader.values[reader.end] = laid(reader, node, value, memory, where.reshape(value.shape))


def _declared(
    reader: Reader, value: Value, memory: tuple[int, ...], where: Places, still: int | None
) -> bool:
    """Whether the model's input, which nobody has read, can lie so: as it is given, row by row."""
    as_given = reader.given_order
    there = np.empty(where.size, np.intp)
    there[value.cells.reshape(-1)] = where.reshape(-1)
    natural_now = np.array_equal(value.cells, where) and reader.shapes[0] == memory
    if natural_now or still == 0 or any(0 in read for read in reader.sources):
        return natural_now
    if not np.array_equal(there[as_given.reshape(-1)], np.arange(where.size)):
        return False
    reader.as_given = True
    reader.shapes[0] = memory
    _renamed(reader, {0}, there)
    return True


def _renamed(reader: Reader, tensors: set[int], order: Places) -> None:
    """Every name for a value of these tensors, whose values have moved."""
    for name, value in reader.values.items():
        if value.tensor in tensors:
            reader.values[name] = value.moved(order[value.cells])
    for name, each in reader.pending.items():
        if each.root.tensor in tensors:
            root = each.root.moved(order[each.root.cells])
            reader.pending[name] = replace(each, root=root)


def _remade(reader: Reader, tensor: int, order: Places, still: int | None = None) -> bool:
    """Whether what makes the tensor makes it in another order now: value i at ``order[i]``."""
    channels = reader.shapes[tensor][-1]
    ahead = order[:channels]
    if sorted(ahead) != list(range(channels)):
        return False
    rows = np.arange(0, order.size, channels)[:, None]
    if not np.array_equal(order.reshape(-1, channels), rows + ahead):
        return False
    chain = _makers(reader, tensor)
    if chain is None or still in chain:
        return False
    back = np.argsort(ahead)
    for made in chain:
        reader.layers[made - 1] = _in_order(reader.layers[made - 1], back)
        size = int(np.prod(reader.shapes[made]))
        moved = np.arange(size) // channels * channels + ahead[np.arange(size) % channels]
        _renamed(reader, {made}, moved)
    return True


def remade_channels(reader: Reader, value: Value, order: Places) -> None:
    """Have channel ``order[i]`` of an image lie as channel i, if that can be had for nothing."""
    size = value.cells.size
    if not value.is_natural or not value.tensor or reader.shapes[value.tensor][-1] != len(order):
        return
    cells = np.arange(size)
    _remade(reader, value.tensor, cells // len(order) * len(order)
            + np.argsort(order)[cells % len(order)])  # fmt: skip


def _makers(reader: Reader, tensor: int) -> set[int] | None:
    """All tensors of that order, if they begin at layers with rows and none has another reader."""
    chain, to_do = {tensor}, [tensor]
    while to_do:
        at = to_do.pop()
        beside = [i + 1 for i, read in enumerate(reader.sources) if at in read]
        if at == 0 or not all(map(partial(_keeps_channels, reader), beside)):
            return None
        if not _has_rows(reader.layers[at - 1]):
            if not _keeps_channels(reader, at):
                return None
            beside += reader.sources[at - 1]
        to_do += set(beside) - chain
        chain.update(beside)
    return chain


def _keeps_channels(reader: Reader, made: int) -> bool:
    """Whether the layer takes each value, or each channel, by itself."""
    layer = reader.layers[made - 1]
    shapes = {reader.shapes[each][-1] for each in (made, *reader.sources[made - 1])}
    each_by_itself = isinstance(layer, (*_EACH_BY_ITSELF, Add, Affine))
    return each_by_itself and layer != Activation("softmax") and len(shapes) == 1


def _has_rows(layer: Layer) -> bool:
    return isinstance(layer, Linear) or (isinstance(layer, Convolution) and layer.groups == 1)


def _in_order(layer: Layer, back: Places) -> Layer:
    if isinstance(layer, Linear | Convolution):
        return replace(layer, weights=layer.weights[back], bias=layer.bias[back])
    if isinstance(layer, Affine):
        return Affine(layer.factor[back], layer.offset[back])
    return layer


def _copied(
    reader: Reader,
    node: onnx.NodeProto,
    value: Value,
    memory: tuple[int, ...],
    where: Places,
    take: Places,
) -> Value:
    layer = transposition(take, memory)
    if layer is None:
        refuse(
            node,
            f"reads {value.shape} in an order that no transposition of five axes makes; keep "
            "channels before height and width throughout",
        )
    return reader.append_where(node, layer, memory, where, value)
