"""Operators that move no number: they say how values are counted."""

from __future__ import annotations

import math

import numpy as np
import onnx

from dpsgd_torch.errors import shown
from dpsgd_torch.export.reading.reader import Attributes, Reader, reads, refuse
from dpsgd_torch.export.reading.values import Value


@reads("Dropout", "Identity")
def identity(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    return reader.value(node)


@reads("Cast")
def cast(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """Between kinds of reals, which the integers replace anyway."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if attributes.get("to") not in kinds:
        refuse(node, "to what is no float32 cannot be carried further")
    return reader.value(node)


@reads("Flatten")
def flatten(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    axis = int(attributes.get("axis", 1))
    if axis % (len(value.shape) + 1) != 1:
        refuse(node, f"axis={axis} cannot be carried further; only 1")
    return value.moved(value.cells.reshape(-1))


@reads("Reshape")
def reshape(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    wanted = reader.integers(node, 1)
    if not attributes.get("allowzero", 0):
        given = (1, *value.shape)
        copied = zip(wanted, [*given, *wanted[len(given) :]], strict=False)
        wanted = [side or there for side, there in copied]
    return _one_example(node, value, f"to {shown(tuple(wanted))}", tuple(wanted))


@reads("Squeeze", "Unsqueeze")
def squeeze(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    given = (1, *value.shape)
    axes = list(attributes.get("axes", ()))
    if len(node.input) > 1 and node.input[1]:
        axes = reader.integers(node, 1)
    if node.op_type == "Unsqueeze":
        wanted = np.expand_dims(np.empty(given, bool), tuple(axes)).shape
    else:
        if not axes:
            refuse(
                node,
                "of every axis of one would take the batch of one too; name the axes, as "
                "squeeze(-1)",
            )
        wanted = np.squeeze(np.empty(given, bool), tuple(axes)).shape
    return _one_example(node, value, f"of axes {shown(axes)}", wanted)


@reads("Transpose")
def transpose(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    order = list(attributes.get("perm", range(len(value.shape), -1, -1)))
    if sorted(order) != list(range(len(value.shape) + 1)) or order[0] != 0:
        sides = "; ".join(
            f"{side} is divided by {', '.join(str(d) for d in range(1, side + 1) if side % d == 0)}"
            for side in dict.fromkeys(value.shape[1:])
        )
        refuse(
            node,
            f"perm={shown(order)} cannot be carried further; the batch must stay first, which it "
            f"does not in an adaptive pool to sides that do not divide those of its input: {sides}",
        )
    return value.moved(value.cells.transpose([axis - 1 for axis in order[1:]]))


def _one_example(node: onnx.NodeProto, value: Value, told: str, wanted: tuple[int, ...]) -> Value:
    """The values in another shape, whose first axis is still the batch of one."""
    size = math.prod(value.shape)
    if -1 in wanted and wanted[0] == -1 and math.prod(wanted[1:]) in (size, -size):
        wanted = (1, *wanted[1:])
    fits = wanted.count(-1) <= 1 and len(wanted) >= 2 and all(s > 0 or s == -1 for s in wanted)
    if fits:
        rest = math.prod(side for side in wanted if side != -1)
        fits = size == rest or (-1 in wanted and size % rest == 0)
    if not fits or wanted[0] != 1:
        refuse(
            node,
            f"{told}, from {(1, *value.shape)}: the first axis must stay the batch of one example",
        )
    return value.moved(value.cells.reshape(wanted[1:]))
