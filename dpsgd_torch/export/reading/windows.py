"""Convolutions and pools, over pictures or lines."""

from __future__ import annotations

import numpy as np
import onnx

from dpsgd_torch.export.graph import Convolution, Padding, Pooling
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reading.reader import Attributes, Reader, only, reads, refuse
from dpsgd_torch.export.reading.values import Value, memory_shape

Pads = tuple[tuple[int, int], ...]


@reads("Conv")
def conv(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    weights = reader.constant(node, 1)
    value = _picture(reader, node)
    if weights.ndim != len(value.shape) + 1:
        refuse(node, f"of {weights.ndim - 2} axes over {value.shape}; one kernel axis a side")
    window, sides = _window(node, value, {**attributes, "kernel_shape": weights.shape[2:]})
    groups = int(attributes.get("group", 1))
    if weights.shape[1] * groups != value.shape[0] or len(weights) % groups:
        refuse(
            node,
            f"{len(weights)} kernels of {weights.shape[1]} channels in {groups} groups do not fit "
            f"an image of {value.shape[0]} channels",
        )
    if weights.ndim == 3:
        weights = weights[:, :, None]
    kernel = np.ascontiguousarray(weights.transpose(0, 2, 3, 1))
    layer = Convolution(kernel, reader.bias(node, len(weights)), window, groups)
    return reader.append(node, layer, (len(weights), *sides), value)


@reads("Pad")
def pad(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    """Zeros around an image's sides."""
    mode = attributes.get("mode", b"constant").decode()
    if mode != "constant":
        refuse(node, f"mode={mode} cannot be carried further; pad with zeros")
    value, given = _picture(reader, node), attributes.get("pads", ())
    fill, axes = float(attributes.get("value", 0.0)), list(range(len(value.shape) + 1))
    if len(node.input) > 1:
        given = reader.integers(node, 1)
    if len(node.input) > 2 and node.input[2]:
        fill = float(reader.constant(node, 2).reshape(()))
    if len(node.input) > 3 and node.input[3]:
        axes = [axis % (len(value.shape) + 1) for axis in reader.integers(node, 3)]
    both = {axis: (given[i], given[len(axes) + i]) for i, axis in enumerate(axes)}
    pads = [both.get(axis, (0, 0)) for axis in range(len(value.shape) + 1)]
    if fill or min(map(min, pads)) < 0 or any(map(any, pads[:2])) or len(given) != 2 * len(axes):
        refuse(node, f"of {fill:g}, pads={list(given)}; only zeros around an image's sides can be "
                     "carried")  # fmt: skip
    (rows, columns) = pads[2:] if len(pads) == 4 else ((0, 0), pads[2])
    sides = [size + sum(each) for size, each in zip(value.shape[1:], pads[2:], strict=True)]
    return reader.append(node, Padding((rows, columns)), (value.shape[0], *sides), value)


@reads("MaxPool", "AveragePool")
def pool(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    only(node, attributes, ceil_mode=0, storage_order=0)
    if len(node.output) > 1:
        refuse(node, "its indices cannot be carried")
    value = _picture(reader, node)
    window, sides = _window(node, value, attributes)
    for k, pads in zip(window.kernel, window.padding, strict=True):
        if max(pads) >= k:
            refuse(
                node,
                f"pads {window.padding} leave windows with nothing in them; each must be less than "
                f"the kernel, {window.kernel}",
            )
    kind = "max" if node.op_type == "MaxPool" else "average"
    if attributes.get("count_include_pad", 0) and any(map(any, window.padding)):
        rows, columns = window.padding
        channels, *given = value.shape
        grown = [size + sum(pads) for size, pads in zip(given, (rows, columns)[-len(given):],
                                                        strict=True)]  # fmt: skip
        value = reader.append(node, Padding(window.padding), (channels, *grown), value)
        window = Window(window.kernel, window.stride)
    layer = Pooling(kind, window)  # type: ignore[arg-type]
    return reader.append(node, layer, (value.shape[0], *sides), value)


def _picture(reader: Reader, node: onnx.NodeProto) -> Value:
    value = reader.value(node)
    if len(value.shape) not in (2, 3):
        refuse(node, f"on {value.shape}; needs an image")
    if not value.is_natural or reader.shapes[value.tensor] != memory_shape(value.shape):
        refuse(
            node,
            "reads values that a Reshape or Transpose has moved; keep channels before height and "
            "width throughout",
        )
    return value


def _window(
    node: onnx.NodeProto, value: Value, attributes: Attributes
) -> tuple[Window, tuple[int, ...]]:
    """How it moves, and the sides of what it makes; a line's window is one cell high."""
    given = value.shape[1:]
    kernel = tuple(int(side) for side in attributes["kernel_shape"])
    stride = tuple(int(side) for side in attributes.get("strides", (1,) * len(given)))
    dilations = list(attributes.get("dilations", [1] * len(given)))
    if any(d != 1 and k != 1 for d, k in zip(dilations, kernel, strict=True)):
        refuse(node, f"dilations={dilations} cannot be carried further; only {[1] * len(given)}")
    if not len(kernel) == len(stride) == len(given) or min(*kernel, *stride) < 1:
        refuse(node, f"kernel {kernel} and strides {stride} do not fit an image of sides {given}")
    pads = _pads(node, attributes, given, kernel, stride)
    sides = tuple(
        (size + sum(each) - k) // s + 1
        for size, k, s, each in zip(given, kernel, stride, pads, strict=True)
    )
    if min(sides) < 1:
        refuse(node, "its kernel is larger than its input")
    if len(given) == 1:
        return Window((1, kernel[0]), (1, stride[0]), ((0, 0), pads[0])), sides
    return Window((kernel[0], kernel[1]), (stride[0], stride[1]), (pads[0], pads[1])), sides


def _pads(
    node: onnx.NodeProto,
    attributes: Attributes,
    given: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
) -> Pads:
    """(before, after) of each side [ONNX, Conv: auto_pad]."""
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        pads = list(attributes.get("pads", (0,) * (2 * len(given))))
        if len(pads) != 2 * len(given):
            refuse(node, f"pads {pads} do not fit an image of {len(given)} sides")
        if min(pads) < 0:
            refuse(node, "pads must not be negative")
        return tuple(zip(pads[: len(given)], pads[len(given) :], strict=True))
    if auto == "VALID":
        return ((0, 0),) * len(given)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        refuse(node, f"auto_pad={auto} is none that ONNX has")
    found = []
    for size, k, s in zip(given, kernel, stride, strict=True):
        total = (-(-size // s) - 1) * s + k - size
        if total < 0 and node.op_type != "Conv":
            refuse(
                node,
                f"auto_pad={auto} of a kernel of {k} and strides of {s}: runtimes disagree on "
                "where it begins; write pads",
            )
        total = max(total, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return tuple(found)
