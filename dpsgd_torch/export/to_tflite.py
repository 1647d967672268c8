"""Integer program or float graph → .tflite, as TensorFlow Lite Micro and Netron read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    Graph,
    Layer,
    Linear,
    Padding,
    Pooling,
)
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    MaxPool2D,
    Operation,
    Pad,
    Program,
    Rescale,
    Softmax,
    Table,
    Tensor,
    Window,
)
from dpsgd_torch.export.tflite_file import TfliteFile

_RELU = 1  # ActivationFunctionType
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
    for index, step in enumerate(program.steps):
        write = _Writer(file, index, values[index], values[index + 1], program.tensors[index].shape)
        _write_integer(write, step.operation, program.tensors[index])
    return file.content(values[0], values[-1], program.provenance)


def to_float_tflite(graph: Graph, provenance: Mapping[str, str]) -> bytes:
    """The graph in float32, a ReLU folded into the layer before it."""
    file = TfliteFile()
    names = _names(len(graph.layers))
    values = [file.value(names[0], graph.shapes[0], np.float32)]
    skip = False
    for index, layer in enumerate(graph.layers):
        if skip:
            skip = False
            continue
        following = graph.layers[index + 1] if index + 1 < len(graph.layers) else None
        skip = following == Activation("relu") and not isinstance(layer, Activation | Padding)
        at = index + 1 + skip
        values.append(file.value(names[at], graph.shapes[at], np.float32))
        write = _Writer(file, index, values[-2], values[-1], graph.shapes[index])
        _write_float(write, layer, _RELU * skip)
    return file.content(values[0], values[-1], provenance)


def _names(layers: int) -> list[str]:
    return ["input", *(f"layer_{i}" for i in range(1, layers)), "output"]


class _Writer:
    """Operators from one tensor to another, with explicit padding where it must be."""

    def __init__(
        self, file: TfliteFile, index: int, source: int, target: int, shape: tuple[int, ...]
    ) -> None:
        self.file, self.index = file, index
        self.source, self.target, self.shape = source, target, shape

    def weighted(
        self, weights: NDArray[Any], bias: NDArray[Any], window: Window | None, groups: int,
        relu: int, scales: tuple[Any, Any] | None = None, pad: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """A linear layer, a convolution or a depthwise one."""
        depthwise = window is not None and groups > 1 and groups == self.shape[-1]
        axis = 0
        if depthwise:
            weights, axis = weights.transpose(3, 1, 2, 0), 3
        told = {} if scales is None else {"scale": scales[0], "axis": axis}
        told_bias = {} if scales is None else {"scale": scales[1]}
        constants = [
            self.file.constant(f"layer_{self.index}.weight", weights, **told),
            self.file.constant(f"layer_{self.index}.bias", bias, **told_bias),
        ]
        if window is None:
            inputs = [self.source, *constants]
            self.file.operator("FULLY_CONNECTED", inputs, self.target, "FullyConnectedOptions",
                               fusedActivationFunction=relu)  # fmt: skip
            return
        padding = self._padding(window, pad or {}, bias.dtype == np.int32)
        fields = {"padding": padding, "strideH": window.stride[0], "strideW": window.stride[1],
                  "fusedActivationFunction": relu}  # fmt: skip
        inputs = [self.source, *constants]
        if depthwise:
            fields["depthMultiplier"] = len(bias) // groups
            self.file.operator(
                "DEPTHWISE_CONV_2D", inputs, self.target, "DepthwiseConv2DOptions", **fields
            )
        else:
            self.file.operator("CONV_2D", inputs, self.target, "Conv2DOptions", **fields)

    def pool(self, kind: str, window: Window, relu: int, pad: dict[str, Any], least: Any) -> None:
        padding = self._padding(window, pad, least is not None and pad != {}, kind, least)
        self.file.operator(
            f"{kind}_POOL_2D", [self.source], self.target, "Pool2DOptions",
            padding=padding, strideH=window.stride[0], strideW=window.stride[1],
            filterHeight=window.kernel[0], filterWidth=window.kernel[1],
            fusedActivationFunction=relu,
        )  # fmt: skip

    def pad(self, padding: tuple[tuple[int, int], tuple[int, int]]) -> None:
        self._pad(self.source, self.target, padding)

    def _padding(
        self, window: Window, told: dict[str, Any], integer: bool, kind: str = "", least: Any = None
    ) -> int:
        """VALID, SAME, or VALID after an operator that pads."""
        names = self.file.schema.Padding
        if not any(map(any, window.padding)):
            return int(names.VALID)
        if _is_same(window, self.shape):
            return int(names.SAME)
        if kind == "AVERAGE":
            raise ExportError(
                f"operator = AveragePool: padding {window.padding} cannot be said in TensorFlow "
                "Lite; pad symmetrically, or use --to c"
            )
        (top, bottom), (left, right) = window.padding
        height, width, channels = self.shape
        padded = (height + top + bottom, width + left + right, channels)
        kind_of = np.int8 if integer else np.float32
        wider = self.file.value(f"layer_{self.index}.padded", padded, kind_of, **told)
        self._pad(self.source, wider, window.padding, least)
        self.source = wider
        return int(names.VALID)

    def _pad(
        self, source: int, target: int, padding: tuple[tuple[int, int], tuple[int, int]],
        fill: Any = None,
    ) -> None:  # fmt: skip
        table = np.array([(0, 0), *padding, (0, 0)], np.int32)
        inputs = [source, self.file.constant(f"layer_{self.index}.padding", table)]
        if fill is None:
            self.file.operator("PAD", inputs, target, "PadOptions")
            return
        value, told = fill
        inputs.append(self.file.constant(f"layer_{self.index}.fill", value, **told))
        self.file.operator("PADV2", inputs, target, "PadV2Options")


def _is_same(window: Window, shape: tuple[int, ...]) -> bool:
    for size, k, stride, given in zip(
        shape, window.kernel, window.stride, window.padding, strict=False
    ):
        total = max((-(-size // stride) - 1) * stride + k - size, 0)
        if given != (total // 2, total - total // 2):
            return False
    return True


def _write_integer(write: _Writer, operation: Operation, before: Tensor) -> None:
    told = {"scale": before.scale, "zero_point": before.zero_point}
    match operation:
        case Dense() | Conv2D():
            scales = operation.weight_scales
            bias_scales = np.float32(before.scale) * scales
            window = operation.window if isinstance(operation, Conv2D) else None
            groups = operation.groups if isinstance(operation, Conv2D) else 1
            relu = _RELU * (operation.requantization.low > -128)
            write.weighted(
                operation.weights, operation.bias, window, groups, relu, (scales, bias_scales), told
            )
        case MaxPool2D(window, low):
            fill = np.array([-128], np.int8), told
            write.pool("MAX", window, _RELU * (low > -128), told, fill)
        case AveragePool2D(window, low):
            write.pool("AVERAGE", window, _RELU * (low > -128), told, None)
        case Pad(padding):
            write.pad(padding)
        case Rescale():
            write.file.operator("RELU", [write.source], write.target)
        case Table(function):
            write.file.operator(_FUNCTIONS[function], [write.source], write.target)
        case Softmax():
            write.file.operator("SOFTMAX", [write.source], write.target, "SoftmaxOptions", beta=1.0)


def _write_float(write: _Writer, layer: Layer, relu: int) -> None:
    match layer:
        case Linear(weights, bias):
            write.weighted(weights, bias, None, 1, relu)
        case Convolution(weights, bias, window, groups):
            write.weighted(weights, bias, window, groups, relu)
        case Pooling(kind, window):
            least: Any = (np.array([np.finfo(np.float32).min], np.float32), {})
            write.pool(kind.upper(), window, relu, {}, least if kind == "max" else None)
        case Padding(padding):
            write.pad(padding)
        case Activation("softmax"):
            write.file.operator("SOFTMAX", [write.source], write.target, "SoftmaxOptions", beta=1.0)
        case Activation(kind):
            write.file.operator(_FUNCTIONS[kind], [write.source], write.target)
