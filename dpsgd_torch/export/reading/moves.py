"""Operators that take parts of values, repeat them or put zeros around them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.errors import shown
from dpsgd_torch.export.graph import Padding
from dpsgd_torch.export.kinds.crop import Crop
from dpsgd_torch.export.kinds.upsample import Upsample
from dpsgd_torch.export.reading.order import as_image, as_layers_lie, image, remade_channels
from dpsgd_torch.export.reading.reader import (
    OF_EXAMPLES,
    Attributes,
    Reader,
    of_features,
    reads,
    refuse,
)
from dpsgd_torch.export.reading.values import Value, memory_shape

_REPEATS = {
    ("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"), ("half_pixel_symmetric", "round_prefer_floor"),
}  # fmt: skip
"""Of Resize: those which by whole factors repeat each cell."""


@reads("Slice")
def part(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    starts, ends = (reader.integers(node, index) for index in (1, 2))
    axes = list(range(len(starts)))
    if len(node.input) > 3 and node.input[3]:
        axes = reader.integers(node, 3)
    steps = [1] * len(starts)
    if len(node.input) > 4 and node.input[4]:
        steps = reader.integers(node, 4)
    cells: NDArray[np.intp] = value.cells[None]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            refuse(node, f"by a step of {step} cannot be carried further; only forwards")
        window = slice(start, end, step)
        cells = cells[(slice(None),) * (axis % cells.ndim) + (window,)]
    if cells.shape[0] != 1:
        refuse(node, OF_EXAMPLES)
    return taken(reader, node, value, cells[0])


@reads("Gather")
def one_place(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    if not reader.is_constant(node, 1):
        refuse(node, "by a place that is computed cannot be carried further")
    value, places = reader.value(node), np.asarray(reader.constants[node.input[1]])
    axis = of_features(node, attributes.get("axis", 0), value)
    return taken(reader, node, value, np.take(value.cells, places, axis))


@reads("Split")
def parts(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    axis = of_features(node, attributes.get("axis", 0), value)
    count, side = len(node.output), value.shape[axis]
    sizes = [-(-side // count)] * (count - 1)
    sizes.append(side - sum(sizes))
    sizes = list(attributes.get("split", sizes))  # before opset 13
    if len(node.input) > 1 and node.input[1]:
        sizes = reader.integers(node, 1)
    if len(sizes) != count or sum(sizes) != side or min(sizes) < 1:
        refuse(node, f"of {side} values into {count} parts of {shown(sizes)}; whole parts are read")
    found = []
    for index in range(count):
        value = reader.value(node)  # which a piece before it may have laid anew
        cells = np.split(value.cells, np.cumsum(sizes[:-1]), axis)[index]
        found.append(taken(reader, node, value, cells))
    reader.values.update(zip(node.output, found, strict=True))
    return found[0]


def taken(reader: Reader, node: onnx.NodeProto, value: Value, cells: NDArray[np.intp]) -> Value:
    """Those of the node's values that lie at ``cells``, which then lie as they lay to each other.

    Where these are no box, all values are put as layers take them first.
    """
    if not cells.ndim or not cells.size:
        refuse(node, f"leaves {cells.size} values of {value.shape}, without an axis or with none")
    if cells.size == value.cells.size and np.array_equal(
        np.sort(cells, None), np.arange(cells.size)
    ):
        return value.moved(cells)
    shape = reader.shapes[value.tensor]
    places = [np.unique(axis) for axis in np.unravel_index(cells.reshape(-1), shape)]
    steps = [int(each[1] - each[0]) if len(each) > 1 else 1 for each in places]
    runs = all((np.diff(each) == step).all() for each, step in zip(places, steps, strict=True))
    sizes = tuple(len(each) for each in places)
    if not runs or math.prod(sizes) != cells.size or np.unique(cells).size != cells.size:
        if len(value.shape) <= 3 and not (value.is_natural and shape == memory_shape(value.shape)):
            which = np.argsort(value.cells, axis=None)[cells]
            value = as_layers_lie(reader, node)
            return taken(reader, node, value, value.cells.reshape(-1)[which])
        refuse(
            node,
            f"of {value.shape} takes values that are no box where they lie; take parts before "
            "moving axes",
        )
    layer = Crop(shape, tuple(int(each[0]) for each in places), sizes, tuple(steps))
    order = np.searchsorted(np.sort(cells, None), cells)
    return reader.append_where(node, layer, sizes, order, value)


@reads("Pad")
def pad(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """Zeros; where a number is negative, less of the value."""
    value, given = reader.value(node), attributes.get("pads", ())
    fill, rank = float(attributes.get("value", 0.0)), len(value.shape) + 1
    mode = attributes.get("mode", b"constant").decode()
    axes = list(range(rank))
    if len(node.input) > 1:
        given = reader.integers(node, 1)
    if len(node.input) > 2 and node.input[2]:
        fill = float(reader.constant(node, 2).reshape(()))
    if len(node.input) > 3 and node.input[3]:
        axes = [axis % rank for axis in reader.integers(node, 3)]
    if len(given) != 2 * len(axes):
        refuse(node, f"pads={list(given)} of {len(axes)} axes; two numbers an axis")
    ends = dict(zip(axes, zip(given[: len(axes)], given[len(axes) :], strict=True), strict=True))
    each = [ends.get(axis, (0, 0)) for axis in range(rank)]
    if mode != "constant" and any(map(any, each)):
        refuse(node, f"mode={mode} cannot be carried further; pad with zeros")
    if fill:
        refuse(node, f"with {fill:g} cannot be carried further; pad with zeros")
    if any(each[0]):
        refuse(node, "around examples of a batch cannot be carried further")
    less = tuple(
        slice(max(-before, 0), side - max(-after, 0))
        for (before, after), side in zip(each[1:], value.shape, strict=True)
    )
    value = taken(reader, node, value, value.cells[less])
    more = [(max(before, 0), max(after, 0)) for before, after in each[1:]]
    if not any(map(any, more)):
        return value
    if any(more[0]) or len(more) not in (2, 3):
        refuse(node, f"by {more} of {value.shape}: only an image's sides can be carried further")
    value = as_image(reader, node, value)
    made = tuple(side + sum(end) for side, end in zip(value.shape, more, strict=True))
    sides = ((0, 0), more[1]) if len(more) == 2 else (more[1], more[2])
    return reader.append(node, Padding(sides), made, value)


@reads("Resize", "Upsample")
def resize(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """By whole factors, each cell repeated."""
    mode = attributes.get("mode", b"nearest").decode()
    way = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    nearest = attributes.get("nearest_mode", b"round_prefer_floor").decode()
    if node.op_type == "Upsample":
        way, nearest = "asymmetric", "floor"
    if mode != "nearest":
        refuse(node, f"mode={mode} cannot be carried further; take mode='nearest', and a Conv "
                     "behind it to smooth")  # fmt: skip
    policy = attributes.get("keep_aspect_ratio_policy", b"stretch").decode()
    if policy != "stretch":
        refuse(node, f"keep_aspect_ratio_policy={policy} cannot be carried; write the sizes it "
                     "comes to, or scales")  # fmt: skip
    value = image(reader, node)
    each = _factors(reader, node, attributes, (1, *value.shape))
    factors = [round(factor) for factor in each]
    whole = factors == each and factors[:2] == [1, 1] and min(factors) > 0
    if not whole or (way, nearest) not in _REPEATS:
        told = ", ".join(f"{factor:g}" for factor in each)
        refuse(
            node,
            f"of {value.shape} by {told} from the batch on, {way}, {nearest}: only by whole "
            "factors of height and width, as Upsample(scale_factor=2), can it be carried",
        )
    if max(factors) == 1:
        return value
    down, across = (1, factors[2]) if len(factors) == 3 else (factors[2], factors[3])
    layer = Upsample(memory_shape(value.shape), down, across)
    made = tuple(side * factor for side, factor in zip(value.shape, factors[1:], strict=True))
    return reader.append(node, layer, made, value)


def _factors(
    reader: Reader, node: onnx.NodeProto, attributes: Attributes, shape: tuple[int, ...]
) -> list[float]:
    """Of every axis: cells are repeated by the scales, whatever the sides are rounded to."""
    axes = [int(axis) % len(shape) for axis in attributes.get("axes", range(len(shape)))]
    if len(node.input) > 3 and node.input[3]:
        sides = reader.integers(node, 3)
        given = [side / shape[axis] for axis, side in zip(axes, sides, strict=True)]
    elif "scales" in attributes:  # Upsample before opset 9
        given = [float(scale) for scale in attributes["scales"]]
    else:
        index = 2 if node.op_type == "Resize" and len(node.input) > 2 else 1
        given = [float(scale) for scale in reader.constant(node, index).reshape(-1)]
    if len(given) != len(axes):
        refuse(node, f"by {len(given)} factors of {len(axes)} axes; one factor an axis")
    found = dict(zip(axes, given, strict=True))
    return [found.get(axis, 1.0) for axis in range(len(shape))]


@reads("DepthToSpace")
def depth_to_space(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value, by = reader.value(node), int(attributes["blocksize"])
    channels, height, width = value.shape
    order: Any = (by, by, channels // by**2), (2, 3, 0, 4, 1)
    if attributes.get("mode", b"DCR") == b"CRD":
        remade_channels(reader, value, np.arange(channels).reshape(-1, by**2).T.reshape(-1))
        value = reader.value(node)
        order = (channels // by**2, by, by), (0, 3, 1, 4, 2)
    cells = value.cells.reshape(*order[0], height, width).transpose(order[1])
    return value.moved(cells.reshape(-1, height * by, width * by))


@reads("SpaceToDepth")
def space_to_depth(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value, by = reader.value(node), int(attributes["blocksize"])
    channels, height, width = value.shape
    cells = value.cells.reshape(channels, height // by, by, width // by, by)
    return value.moved(cells.transpose(2, 4, 0, 1, 3).reshape(-1, height // by, width // by))


@reads("Expand")
def expand(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    value = reader.value(node)
    given, wanted = (1, *value.shape), tuple(reader.integers(node, 1))
    if np.broadcast_shapes(given, wanted) != given:
        refuse(node, f"from {given} to {shown(wanted)} repeats values; only to its own shape")
    return value
