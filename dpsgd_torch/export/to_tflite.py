"""Integer program or float graph → .tflite, as TensorFlow Lite Micro and Netron read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpsgd_torch.export.clamps import FUSED
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    FloatKind,
    Graph,
    Layer,
    Linear,
    Padding,
    Pooling,
    clamp_of,
)
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    MaxPool2D,
    Operation,
    OperationKind,
    Pad,
    Program,
    Rescale,
    Softmax,
    Table,
    Tensor,
)
from dpsgd_torch.export.tflite_file import TfliteFile
from dpsgd_torch.export.tflite_write import Writer

_FUNCTIONS = {"relu": "RELU", "tanh": "TANH", "logistic": "LOGISTIC"}


def to_int8_tflite(program: Program) -> bytes:
    """The program as a file whose interpretation gives the program's very bytes.

    Raises:
        ExportError: an average pool whose padding TensorFlow Lite has no word for.
    """
    file = TfliteFile()
    values = [
        file.value(name, tensor.shape, np.int8, scale=tensor.scale, zero_point=tensor.zero_point)
        for name, tensor in zip(_names(len(program.steps)), program.tensors, strict=True)
    ]
    for index, (step, read) in enumerate(zip(program.steps, program.sources, strict=True)):
        sources = [program.tensors[source] for source in read]
        places = [values[source] for source in read]
        write = Writer(file, index, places, values[index + 1], [source.shape for source in sources])
        if isinstance(step.operation, OperationKind):
            step.operation.write_tflite(write, sources, step.output)
        else:
            _write_integer(write, step.operation, sources[0], step.output)
    return file.content(values[0], values[-1], program.provenance)


def to_float_tflite(graph: Graph, provenance: Mapping[str, str]) -> bytes:
    """The graph in float32, clamps in the layer before them where TensorFlow Lite can fuse them."""
    file = TfliteFile()
    names = _names(len(graph.layers))
    values = {0: file.value(names[0], graph.shapes[0], np.float32)}
    taken: set[int] = set()
    for index, layer in enumerate(graph.layers):
        if index in taken:
            continue
        clamp = graph.clamp_after(index)
        ends = None if clamp is None else clamp_of(graph.layers[clamp])
        if ends not in FUSED:
            clamp = None
        if clamp is not None:
            taken.add(clamp)
        at = (index if clamp is None else clamp) + 1
        values[at] = values[index + 1] = file.value(names[at], graph.shapes[at], np.float32)
        read = graph.sources[index]
        sources = [values[source] for source in read]
        write = Writer(file, index, sources, values[at], [graph.shapes[source] for source in read])
        fused = 0 if ends is None else FUSED.get(ends, 0)
        if isinstance(layer, FloatKind):
            layer.write_float(write, fused)
        else:
            _write_float(write, layer, fused)
    return file.content(values[0], values[len(graph.layers)], provenance)


def _names(layers: int) -> list[str]:
    return ["input", *(f"layer_{i}" for i in range(1, layers)), "output"]


def _write_integer(write: Writer, operation: Operation, before: Tensor, after: Tensor) -> None:
    told = {"scale": before.scale, "zero_point": before.zero_point}
    match operation:
        case Dense() | Conv2D():
            scales = operation.weight_scales
            bias_scales = np.float32(before.scale) * scales
            window = operation.window if isinstance(operation, Conv2D) else None
            groups = operation.groups if isinstance(operation, Conv2D) else 1
            how = operation.requantization
            fused = write.fused((how.low, how.high), after)
            write.weighted(
                operation.weights,
                operation.bias,
                window,
                groups,
                fused,
                (scales, bias_scales),
                told,
            )
        case MaxPool2D(window, low, high):
            fill = np.array([-128], np.int8), told
            write.pool("MAX", window, write.fused((low, high), after), told, fill)
        case AveragePool2D(window, low, high):
            write.pool("AVERAGE", window, write.fused((low, high), after), told, None)
        case Pad(padding):
            write.pad(padding)
        case Rescale():
            write.file.operator("RELU", [write.source], write.target)
        case Table(function):
            write.file.operator(_FUNCTIONS[function], [write.source], write.target)
        case Softmax():
            write.file.operator("SOFTMAX", [write.source], write.target, "SoftmaxOptions", beta=1.0)


def _write_float(write: Writer, layer: Layer, fused: int) -> None:
    match layer:
        case Linear(weights, bias):
            write.weighted(weights, bias, None, 1, fused)
        case Convolution(weights, bias, window, groups):
            write.weighted(weights, bias, window, groups, fused)
        case Pooling(kind, window):
            least: Any = (np.array([np.finfo(np.float32).min], np.float32), {})
            write.pool(kind.upper(), window, fused, {}, least if kind == "max" else None)
        case Padding(padding):
            write.pad(padding)
        case Activation("softmax"):
            write.file.operator("SOFTMAX", [write.source], write.target, "SoftmaxOptions", beta=1.0)
        case Activation(kind):
            write.file.operator(_FUNCTIONS[kind], [write.source], write.target)
