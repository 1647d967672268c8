"""Arithmetic with constants: BatchNormalization, and Mul, Div, Add and Sub of one by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.kinds.affine import Affine, batch_norm, constant
from dpsgd_torch.export.reading.order import as_layers_lie
from dpsgd_torch.export.reading.reader import Attributes, Reader, only, reads, refuse
from dpsgd_torch.export.reading.values import Value, memory_shape, natural

Doubles = NDArray[np.float64]


@reads("BatchNormalization")
def normalization(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    only(node, attributes, training_mode=0)
    value = reader.value(node)
    if len(node.output) > 1 and any(node.output[1:]):
        refuse(node, "in training; export the model in evaluation mode, model.eval()")
    scale, shift, mean, variance = (reader.constant(node, index) for index in range(1, 5))
    if {each.shape for each in (scale, shift, mean, variance)} != {value.shape[:1]}:
        refuse(node, f"of {scale.size} channels on {value.shape[0]}")
    if variance.min() < 0:
        refuse(node, "its variance is negative; train the model again")
    norm = batch_norm(scale, shift, mean, variance, float(attributes.get("epsilon", 1e-5)))
    column = (-1, *[1] * (len(value.shape) - 1))
    value = _laid(reader, node, 0, norm.factor.reshape(column), norm.offset.reshape(column))
    return affine(reader, node, value, norm.factor.reshape(column), norm.offset.reshape(column))


_BROADCAST = ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Pow", "Where", "Greater", "Less",
              "GreaterOrEqual", "LessOrEqual", "Equal", "And", "Or")  # fmt: skip


def refuse_more_axes(reader: Reader, node: onnx.NodeProto) -> None:
    """A constant of more axes than what it meets gives that an axis before the batch."""
    if node.op_type not in _BROADCAST:
        return
    computed = [reader.rank(name) for name in node.input if name not in reader.constants]
    for name in node.input:
        if name in reader.constants and reader.constants[name].ndim > max(computed, default=0) > 0:
            refuse(
                node,
                f"of a constant of shape {reader.constants[name].shape} to {max(computed)} axes "
                "makes the batch another axis than the first; leave out axes of the constant",
            )


@reads("Neg")
def negative(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    return affine(reader, node, reader.value(node), np.array(-1.0), np.array(0.0))


def with_constant(reader: Reader, node: onnx.NodeProto, place: int) -> Value:
    """Mul, Div, Add or Sub whose input ``place`` is constant."""
    if reader.is_constant(node, 1 - place):
        refuse(node, "of two constants; one of its inputs must be computed")
    number = reader.constant(node, place).astype(np.float64)
    value = _laid(reader, node, 1 - place, number)
    one, none = np.array(1.0), np.array(0.0)
    if node.op_type == "Add":
        return affine(reader, node, value, one, number)
    if node.op_type == "Sub":
        factor, offset = (-one, number) if place == 0 else (one, -number)
        return affine(reader, node, value, factor, offset)
    if node.op_type == "Div":
        if place == 0 or not number.all():
            refuse(node, "by what is computed, or by zero, cannot be carried further")
        number = 1 / number
    return affine(reader, node, value, number, none)


def affine(
    reader: Reader, node: onnx.NodeProto, value: Value, factor: Doubles, offset: Doubles
) -> Value:
    """value × factor + offset, each broadcast as ONNX does, one number a channel."""
    shape = reader.shapes[value.tensor]
    rows = [_by_channel(node, value, each, shape[-1]) for each in (factor, offset)]
    return reader.append_cell_by_cell(node, Affine(*rows), value)


def _laid(reader: Reader, node: onnx.NodeProto, index: int, *numbers: Doubles) -> Value:
    """What is read, put as layers take it where the numbers are one a channel only so."""
    value = reader.value(node, index)
    if len(value.shape) > 3 or all(_fits(value, each, reader.shapes[value.tensor][-1])
                                   for each in numbers):  # fmt: skip
        return value
    straight, channels = value.moved(natural(value.shape)), memory_shape(value.shape)[-1]
    if not all(_fits(straight, each, channels) for each in numbers):
        return value
    return as_layers_lie(reader, node, index)


def _fits(value: Value, number: Doubles, channels: int) -> bool:
    """Whether it is one number a channel, or cannot be broadcast at all."""
    rows = _rows(value, number, channels)
    return rows is None or bool((rows == rows[0]).all())


def _rows(value: Value, number: Doubles, channels: int) -> Doubles | None:
    """(rows, channels) of a tensor in memory, each value the number that meets it."""
    given: tuple[Any, ...] = (1, *value.shape)
    if number.ndim > len(given) or np.broadcast_shapes(number.shape, given) != given:
        return None
    places = np.empty(value.cells.size)
    places[value.cells.reshape(-1)] = np.broadcast_to(number, given).reshape(-1)
    return places.reshape(-1, channels)


def _by_channel(node: onnx.NodeProto, value: Value, number: Doubles, channels: int) -> Doubles:
    """In the order in which the channels lie in memory."""
    if number.size == 1:
        return constant(channels, number).factor
    rows = _rows(value, number, channels)
    if rows is None:
        refuse(node, f"of a constant of shape {number.shape} to {value.shape}; both must fit")
    if (rows != rows[0]).any():
        refuse(
            node,
            f"of a constant of shape {number.shape} to {value.shape}; only one number a channel, "
            "or one for all, can be carried",
        )
    return rows[0]
