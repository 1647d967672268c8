"""Operators of several tensors: sum, product, concatenation; of one of them and a constant."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.concat import Concat
from dpsgd_torch.export.kinds.mul import Mul, product_shape
from dpsgd_torch.export.reading.constants import affine, with_constant
from dpsgd_torch.export.reading.order import image, laid
from dpsgd_torch.export.reading.reader import Attributes, Reader, of_features, reads, refuse
from dpsgd_torch.export.reading.values import Value, memory_shape, natural


@reads("Add", "Sub", "Mul", "Div")
def arithmetic(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    for place in (0, 1):
        if reader.is_constant(node, place):
            return with_constant(reader, node, place)
    first, second = reader.value(node), reader.value(node, 1)
    if node.op_type == "Sub":
        second = affine(reader, node, second, np.array(-1.0), np.array(0.0))
    if first.shape == second.shape:
        memory = reader.shapes[first.tensor]
        second = laid(reader, node, second, memory, first.cells, held=first)
    told = f"of computed tensors of shapes {first.shape} and {second.shape}"
    lie = product_shape(reader.shapes[first.tensor], reader.shapes[second.tensor])
    same = first.shape == second.shape and np.array_equal(first.cells, second.cells)
    same = same and lie is not None and math.prod(lie) == math.prod(first.shape)
    if node.op_type in ("Add", "Sub"):
        if not same:
            refuse(node, f"{told}; only two of one shape, read in one order, are carried further")
        return reader.append_where(node, Add(), lie or (), first.cells, first, second)
    if node.op_type != "Mul":
        refuse(node, f"{told}; cannot be carried further: multiply instead")
    if same:
        return reader.append_where(node, Mul(), lie or (), first.cells, first, second)
    if len(first.shape) == len(second.shape):
        first = image(reader, node)
        second = image(reader, node, 1, held=first)
        lie = product_shape(reader.shapes[first.tensor], reader.shapes[second.tensor])
        shape = tuple(int(side) for side in np.maximum(first.shape, second.shape))
        if lie is not None and _sides(lie) == _sides(memory_shape(shape)):
            return reader.append_where(node, Mul(), lie, natural(shape), first, second)
    refuse(
        node,
        f"{told}; only two of one shape, read in one order, or one of them with one number a "
        "channel, or one a cell, are carried further",
    )


def _sides(shape: tuple[int, ...]) -> list[int]:
    """Those that say in which order values lie: a mean over an image is (1, 1, channels)."""
    return [side for side in shape if side > 1]


@reads("Concat")
def concatenation(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """Side by side in memory's last axis, whatever the axis: ``cells`` say where they lie."""
    values = [reader.value(node, index) for index in range(len(node.input))]
    axis = of_features(node, attributes["axis"], values[0])
    shapes = [reader.shapes[value.tensor] for value in values]
    flat = len({shape[:-1] for shape in shapes}) > 1
    if flat:
        shapes = [(int(np.prod(shape)),) for shape in shapes]
    width = sum(shape[-1] for shape in shapes)
    cells, at = [], 0
    for value, (*_, part) in zip(values, shapes, strict=True):
        cells.append(value.cells // part * width + at + value.cells % part)
        at += part
    memory = (*shapes[0][:-1], width)
    where = np.concatenate(cells, axis=axis)
    return reader.append_where(node, Concat(), memory, where, *values)
