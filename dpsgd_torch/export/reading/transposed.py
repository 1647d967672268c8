"""Transposed convolutions, as the convolution of the phases of their output.

With stride s, output b s + f, of phase f, is Σ_j w[r + j s] x[b + q − j], where f + padding =
q s + r: a convolution of stride 1 for each phase, all of them at once with s × s as many channels,
which are then laid out as depth to space [Shi et al. 2016]. Nothing is multiplied by the zeros
that a convolution over a stretched picture has, and the integers are those of a convolution.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from dpsgd_torch.export.graph import Convolution
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reading.moves import taken
from dpsgd_torch.export.reading.order import as_image, image
from dpsgd_torch.export.reading.reader import Attributes, Reader, only, reads, refuse
from dpsgd_torch.export.reading.values import Value


@reads("ConvTranspose")
def transposed(reader: Reader, node: onnx.NodeProto, attributes: Attributes) -> Value:
    weights, value = reader.constant(node, 1), reader.value(node)
    sides = len(value.shape) - 1
    if weights.ndim != len(value.shape) + 1 or sides not in (1, 2):
        refuse(node, f"of {weights.ndim - 2} axes over {value.shape}; one kernel axis a side")
    only(node, attributes, group=1, auto_pad=b"NOTSET", dilations=[1] * sides)
    if "output_shape" in attributes:
        refuse(node, "output_shape cannot be carried further; give pads")
    if len(weights) != value.shape[0]:
        refuse(node, f"of {len(weights)} channels on {value.shape[0]}")
    strides = [int(each) for each in attributes.get("strides", [1] * sides)]
    pads = [int(each) for each in attributes.get("pads", [0] * (2 * sides))]
    more = [int(each) for each in attributes.get("output_padding", [0] * sides)]
    made = [
        (side - 1) * s + k - before - after + extra
        for side, s, k, before, after, extra in zip(
            value.shape[1:], strides, weights.shape[2:], pads[:sides], pads[sides:], more,
            strict=True,
        )
    ]  # fmt: skip
    if min(made) < 1 or min(strides) < 1 or min(pads) < 0:
        refuse(node, f"makes an image of sides {made}")
    value = image(reader, node)
    kernel, padding = weights, []
    for axis in range(sides):
        kernel, ends = _phases(
            kernel, axis + 2, strides[axis], pads[axis], value.shape[axis + 1], made[axis]
        )
        padding.append(ends)
    return _carried(reader, node, value, kernel, padding, strides, made)


def _phases(
    weights: NDArray[np.float32], axis: int, stride: int, pad: int, side: int, made: int
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """A convolution's kernels along the axis, phases as a last axis; and its padding."""
    size = weights.shape[axis]
    taps: dict[tuple[int, int], int] = {}  # (phase, offset in the input) → place in the kernel
    for phase in range(stride):
        whole, rest = divmod(phase + pad, stride)
        for step, place in enumerate(range(rest, size, stride)):
            taps[phase, whole - step] = place
    first = min(offset for _, offset in taps)
    last = max(offset for _, offset in taps)
    shape = [*weights.shape, stride]
    shape[axis] = last - first + 1
    kernel = np.zeros(shape, np.float32)
    there, from_weights = np.moveaxis(kernel, axis, 0), np.moveaxis(weights, axis, 0)
    for (phase, offset), place in taps.items():
        there[offset - first][..., phase] = from_weights[place]
    blocks = math.ceil(made / stride)
    return kernel, (-first, blocks - 1 + last - (side - 1))


def _carried(
    reader: Reader,
    node: onnx.NodeProto,
    value: Value,
    kernel: NDArray[np.float32],
    padding: list[tuple[int, int]],
    strides: list[int],
    made: list[int],
) -> Value:
    sides, outputs = len(made), kernel.shape[1]
    if sides == 1:
        kernel, padding = kernel[:, :, None], [(0, 0), *padding]
        kernel = kernel.reshape(*kernel.shape[:4], 1, strides[0])
    # (in, out, height, width, phases down, phases across) → (phases, out), height, width, in
    rows = kernel.transpose(4, 5, 1, 2, 3, 0)
    rows = np.ascontiguousarray(rows.reshape(-1, *rows.shape[3:]))
    if min(end for ends in padding for end in ends) < 0:
        parts = [slice(max(0, -before), side - max(0, -after))
                 for (before, after), side
                 in zip(padding[-sides:], value.shape[1:], strict=True)]  # fmt: skip
        value = taken(reader, node, value, value.cells[(slice(None), *parts)])
    window = Window(
        (rows.shape[1], rows.shape[2]),
        (1, 1),
        tuple((max(0, before), max(0, after)) for before, after in padding),  # type: ignore[arg-type]
    )
    phases = math.prod(strides)
    bias = np.tile(reader.bias(node, outputs), phases)
    blocks = [-(-side // s) for side, s in zip(made, strides, strict=True)]
    layer = Convolution(rows, bias, window, 1)
    wide = reader.append(node, layer, (phases * outputs, *blocks), value)
    if sides == 1:
        cells = wide.cells.reshape(strides[0], outputs, blocks[0]).transpose(1, 2, 0)
    else:
        cells = wide.cells.reshape(*strides, outputs, *blocks).transpose(2, 3, 0, 4, 1)
    grown = (outputs, *(b * s for b, s in zip(blocks, strides, strict=True)))
    wide = wide.moved(cells.reshape(grown))
    if list(grown[1:]) == made:
        return wide
    whole = as_image(reader, node, wide)
    return taken(reader, node, whole, whole.cells[(slice(None), *(slice(0, m) for m in made))])
