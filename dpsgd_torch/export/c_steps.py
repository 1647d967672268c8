"""Each operation in C: its constants, its call, the kernels it uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpsgd_torch.export.c_layout import Rows, exact, pack, rows_of
from dpsgd_torch.export.c_text import StepText, array, literal
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    Int8,
    Int32,
    MaxPool2D,
    Operation,
    OperationKind,
    Pad,
    Requantization,
    Rescale,
    Softmax,
    Table,
    Tensor,
    Window,
)

QUAD = 4
"""Channels that a depthwise convolution takes at a time."""

DIRECT_ROW = 64
"""Rows of this many inputs or more are read where they lie; shorter ones are copied together."""


def write(
    name: str,
    operation: Operation,
    sources: Sequence[Tensor],
    target: Tensor,
    callers_input: bool,
) -> StepText:
    """The step called ``name``; ``callers_input``: not a byte beyond the input may be read."""
    source = sources[0]
    match operation:
        case OperationKind():
            return operation.write_c(name, sources, target)
        case Dense():
            return _dense(name, operation, source, target, callers_input)
        case Conv2D() if operation.weights.shape[3] == 1 and operation.groups > 1:
            return _depthwise(name, operation, source, target)
        case Conv2D():
            return _conv(name, operation, source, target)
        case MaxPool2D() | AveragePool2D():
            kernel = "max_pool" if isinstance(operation, MaxPool2D) else "average_pool"
            helpers = ("copy", "keep_larger") if isinstance(operation, MaxPool2D) else ()
            return StepText(
                ("window", *helpers, kernel),
                f"model_{kernel}(&{name}_window, {operation.low}, {operation.high}, "
                "{input}, {output});",
                (_window(name, operation.window, source, target),),
            )
        case Rescale():
            how = operation.requantization
            call = _call(
                "rescale",
                source.size,
                source.zero_point,
                int(how.multiplier[0]),
                int(shifts_down(how)[0]),
                target.zero_point,
                how.low,
                how.high,
            )
            return StepText(("rescale",), call)
        case Table():
            table = array("int8_t", f"{name}_{operation.function}", operation.table)
            call = (
                f"model_lookup({source.size}, {name}_{operation.function}, {{input}}, {{output}});"
            )
            return StepText(("table",), call, (table,))
        case Softmax():
            numbers = (operation.multiplier, operation.shift, operation.diff_min)
            return StepText(("softmax",), _call("softmax", source.size, *numbers))
        case Pad():
            height, width, channels = source.shape
            (top, bottom), (left, right) = operation.padding
            sides = (top, bottom, left * channels, right * channels)
            call = _call("pad", height, width * channels, *sides, target.zero_point)
            return StepText(("copy", "fill", "pad"), call)
    raise TypeError(operation)


def _call(kernel: str, *numbers: int) -> str:
    return f"model_{kernel}({_list(numbers)}, {{input}}, {{output}});"


def _dense(
    name: str, dense: Dense, source: Tensor, target: Tensor, callers_input: bool
) -> StepText:
    depth = dense.weights.shape[1]
    staged = callers_input and depth < 4  # too short to overlap
    rows = rows_of(dense.weights, may_read_beyond=staged or not callers_input)
    constants: tuple[str, ...] = (
        _folded(name, dense.weights, dense.bias, dense.requantization, source),
        f"static const model_layer {name} = "
        + _layer(name, rows, len(dense.weights), dense.requantization, target)
        + ";",
    )
    kernels: tuple[str, ...] = ("lanes", "channel", "channels")
    scratch = 0
    call = f"model_channels(&{name}, {{input}}, {{output}});"
    if staged:
        kernels, scratch = ("copy", "lanes", "channel", "channels"), 4
        call = f"model_copy({{scratch}}, {{input}}, {depth});\n    "
        call += f"model_channels(&{name}, {{scratch}}, {{output}});"
    constants = (_words(name, dense.weights, rows), *constants)
    return StepText(kernels, call, constants, scratch, rows.chunks)


def _conv(name: str, conv: Conv2D, source: Tensor, target: Tensor) -> StepText:
    outputs, height, width, depth = conv.weights.shape
    window = _window(name, conv.window, source, target)
    line = width * depth
    flat = conv.weights.reshape(outputs, -1)
    padded = conv.window.padding != ((0, 0), (0, 0))
    dilated = conv.window.dilation != (1, 1)
    direct = conv.groups == 1 and not (padded or dilated) and line % 4 == 0 and exact(flat)
    if direct and (line >= DIRECT_ROW or height == 1):
        rows = Rows(1, height, line // 4, line // 4, source.shape[1] * depth)
        words = _words(name, flat, rows, [row * line for row in range(height)])
        layer = _layer(name, rows, outputs, conv.requantization, target)
        layer = f"static const model_layer {name} = {layer};"
        constants = _folded(name, flat, conv.bias, conv.requantization, source)
        call = f"model_conv(&{name}_window, &{name}, {{input}}, {{output}});"
        kernels = ("window", "lanes", "channel", "channels", "conv")
        return StepText(kernels, call, (words, constants, window, layer))
    each = outputs // conv.groups
    constants = _folded(name, flat, conv.bias, conv.requantization, source)
    words_of: list[str] = []
    layers: list[str] = []
    chunks = 1
    for group in range(conv.groups):
        part = flat[group * each : (group + 1) * each]
        rows = rows_of(part, may_read_beyond=True)
        part_name = name if conv.groups == 1 else f"{name}_{group}"
        words_of.append(_words(part_name, part, rows))
        chunks = max(chunks, rows.chunks)
        layers.append(
            _layer(name, rows, each, conv.requantization, target, part_name, group * each)
        )
    table = f"static const model_layer {name}[{conv.groups}] = {{\n" + ",\n".join(layers) + "};"
    kernel = "conv_dilated" if dilated else "conv_patch"
    apart = f"{_list(conv.window.dilation)}, " if dilated else ""
    call = (
        f"model_{kernel}(&{name}_window, {name}, {conv.groups}, {apart}{source.zero_point}, "
        "{input}, {scratch}, {output});"
    )
    return StepText(
        ("window", "lanes", "channel", "channels", "copy", "fill", kernel),
        call,
        (*words_of, constants, window, table),
        height * line + 3,
        chunks,
    )


def _depthwise(name: str, conv: Conv2D, source: Tensor, target: Tensor) -> StepText:
    outputs = conv.weights.shape[0]
    weights = conv.weights[:, :, :, 0].transpose(1, 2, 0)
    how = conv.requantization
    each = outputs // source.shape[2]
    numbers = (source.zero_point, target.zero_point, how.low, how.high)
    dilated = conv.window.dilation != (1, 1)
    in_fours = each == 1 and outputs >= QUAD and not dilated
    kernel, kind = ("depthwise_quads", "quads") if in_fours else ("depthwise", "depthwise")
    told = _list(numbers if in_fours else (each, *numbers))
    if dilated:
        kernel, kind = "depthwise_dilated", "dilated"
        told = _list((each, *conv.window.dilation, *numbers))
    constants = (
        array("int8_t", f"{name}_weights", weights),
        _channels(name, conv.bias, how),
        _window(name, conv.window, source, target),
        f"static const model_{kind}_layer {name} = {{{name}_weights, {name}_channels,\n    "
        f"{told}}};",
    )
    call = f"model_{kernel}(&{name}_window, &{name}, {{input}}, {{output}});"
    return StepText(("window", "lanes", "channel", kernel), call, constants)


def _words(name: str, weights: Int8, rows: Rows, offsets: list[int] | None = None) -> str:
    return array("uint32_t", f"{name}_weights", pack(weights, rows, offsets))


def _folded(name: str, weights: Int8, bias: Int32, how: Requantization, source: Tensor) -> str:
    """The channels' factors; the bias less what the input's zero point adds, modulo 2^32."""
    sums = weights.astype(np.int64).sum(axis=1)
    folded = bias.astype(np.int64) - source.zero_point * sums
    return _channels(name, folded.astype(np.int32), how)


def _channels(name: str, bias: Int32, how: Requantization) -> str:
    rows = "\n".join(
        f"    {{{_list(row)}}},"
        for row in zip(
            bias.tolist(), how.multiplier.tolist(), shifts_down(how).tolist(), strict=True
        )
    )
    return f"static const model_channel {name}_channels[{len(bias)}] = {{\n{rows}\n}};"


def _layer(
    name: str,
    rows: Rows,
    channels: int,
    how: Requantization,
    target: Tensor,
    weights_name: str | None = None,
    first: int = 0,
) -> str:
    offset = f" + {first}" if first else ""
    numbers = (rows.stride, rows.chunks, rows.rows, rows.quads, rows.last_quads, channels)
    return (
        f"{{{weights_name or name}_weights, {name}_channels{offset},\n"
        f"    {_list(numbers)}, {target.zero_point}, {how.low}, {how.high}}}"
    )


def shifts_down(how: Requantization) -> Int32:
    """Shifts to the right; a factor of zero is one however it is shifted."""
    return np.where(how.multiplier == 0, 1, -how.shift).astype(np.int32)


def _window(name: str, window: Window, source: Tensor, target: Tensor) -> str:
    numbers = (
        *source.shape,
        *target.shape[:2],
        *window.kernel,
        *window.stride,
        window.padding[0][0],
        window.padding[1][0],
    )
    return f"static const model_window {name}_window = {{{_list(numbers)}}};"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(literal(number) for number in numbers)
