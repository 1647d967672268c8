"""Convolutions and pools, over pictures or lines."""

from __future__ import annotations

import numpy as np
import onnx

from dpsgd_torch.export.graph import Convolution, Padding, Pooling
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reading.order import image
from dpsgd_torch.export.reading.reader import Attributes, Reader, only, reads, refuse
from dpsgd_torch.export.reading.values import Value

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


@reads("MaxPool", "AveragePool")
def pool(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    only(node, attributes, storage_order=0)
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
    counted, _ = _window(node, value, {**attributes, "ceil_mode": 0})
    if attributes.get("count_include_pad", 0) and any(map(any, counted.padding)):
        rows, columns = counted.padding
        channels, *given = value.shape
        grown = [size + sum(pads) for size, pads in zip(given, (rows, columns)[-len(given):],
                                                        strict=True)]  # fmt: skip
        value = reader.append(node, Padding(counted.padding), (channels, *grown), value)
        down, across = (
            end[1] - each[1] for end, each in zip(window.padding, counted.padding, strict=True)
        )
        window = Window(window.kernel, window.stride, ((0, down), (0, across)))
    layer = Pooling(kind, window)  # type: ignore[arg-type]
    return reader.append(node, layer, (value.shape[0], *sides), value)


def _picture(reader: Reader, node: onnx.NodeProto) -> Value:
    value = reader.value(node)
    if len(value.shape) not in (2, 3):
        refuse(node, f"on {value.shape}; needs an image")
    return image(reader, node)


def _window(
    node: onnx.NodeProto, value: Value, attributes: Attributes
) -> tuple[Window, tuple[int, ...]]:
    """How it moves, and the sides of what it makes; a line's window is one cell high."""
    given = value.shape[1:]
    kernel = tuple(int(side) for side in attributes["kernel_shape"])
    stride = tuple(int(side) for side in attributes.get("strides", (1,) * len(given)))
    if not len(kernel) == len(stride) == len(given) or min(*kernel, *stride) < 1:
        refuse(node, f"kernel {kernel} and strides {stride} do not fit an image of sides {given}")
    apart = _dilations(node, attributes, kernel)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, apart, strict=True))
    pads = _pads(node, attributes, given, reach, stride)
    if attributes.get("ceil_mode", 0):
        pads = _rounded_up(node, given, reach, stride, pads)
    sides = tuple(
        (size + sum(each) - k) // s + 1
        for size, k, s, each in zip(given, reach, stride, pads, strict=True)
    )
    if min(sides) < 1:
        refuse(node, "its kernel is larger than its input")
    if len(given) == 1:
        return Window((1, kernel[0]), (1, stride[0]), ((0, 0), pads[0]), (1, apart[0])), sides
    both = (kernel[0], kernel[1]), (stride[0], stride[1]), (pads[0], pads[1]), (apart[0], apart[1])
    return Window(*both), sides


def _dilations(
    node: onnx.NodeProto, attributes: Attributes, kernel: tuple[int, ...]
) -> tuple[int, ...]:
    """Of a convolution; 1 along an axis on which the kernel is one cell."""
    given = [int(each) for each in attributes.get("dilations", [1] * len(kernel))]
    if len(given) != len(kernel) or min(given) < 1:
        refuse(node, f"dilations={given} do not fit a kernel of {kernel}")
    found = tuple(d if k > 1 else 1 for d, k in zip(given, kernel, strict=True))
    if max(found) > 1 and node.op_type != "Conv":
        refuse(node, f"dilations={given} cannot be carried further; only {[1] * len(given)}")
    return found


def _rounded_up(
    node: onnx.NodeProto,
    given: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pads: Pads,
) -> Pads:
    """With what a last window has beyond the image, which holds nothing."""
    found = []
    for size, k, s, (before, after) in zip(given, kernel, stride, pads, strict=True):
        more = -(size + before + after - k) % s
        last = size + before + after + more - k
        if more and last >= size + before:
            refuse(node, "ceil_mode begins a last window outside the image; set ceil_mode=False")
        found.append((before, after + more))
    return tuple(found)


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
