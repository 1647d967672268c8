"""Operators of a .tflite, each between tensors that are there, with what TensorFlow Lite asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.clamps import Limits, fused
from dpsgd_torch.export.tensors import Tensor, Window
from dpsgd_torch.export.tflite_file import TfliteFile


class Writer:
    """Operators from one tensor to another, with explicit padding where it must be."""

    def __init__(
        self,
        file: TfliteFile,
        index: int,
        sources: Sequence[int],
        target: int,
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self.file, self.index, self.sources = file, index, tuple(sources)
        self.shapes = tuple(shapes)
        self.source, self.target, self.shape = sources[0], target, shapes[0]

    def fused(self, limits: Limits, target: Tensor) -> int:
        """The ActivationFunctionType that clamps the target so."""
        code = fused(limits, target)
        if code is None:
            raise ExportError(
                f"layer {self.index}: its clamp to {limits} cannot be said in TensorFlow Lite; "
                "use --to c"
            )
        return code

    def weighted(
        self, weights: NDArray[Any], bias: NDArray[Any], window: Window | None, groups: int,
        fused: int, scales: tuple[Any, Any] | None = None, pad: dict[str, Any] | None = None,
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
                               fusedActivationFunction=fused)  # fmt: skip
            return
        padding = self._padding(window, pad or {}, bias.dtype == np.int32)
        fields = {"padding": padding, "strideH": window.stride[0], "strideW": window.stride[1],
                  "dilationHFactor": window.dilation[0], "dilationWFactor": window.dilation[1],
                  "fusedActivationFunction": fused}  # fmt: skip
        inputs = [self.source, *constants]
        if depthwise:
            fields["depthMultiplier"] = len(bias) // groups
            self.file.operator(
                "DEPTHWISE_CONV_2D", inputs, self.target, "DepthwiseConv2DOptions", **fields
            )
        else:
            self.file.operator("CONV_2D", inputs, self.target, "Conv2DOptions", **fields)

    def pool(self, kind: str, window: Window, fused: int, pad: dict[str, Any], least: Any) -> None:
        padding = self._padding(window, pad, least is not None and pad != {}, kind, least)
        self.file.operator(
            f"{kind}_POOL_2D", [self.source], self.target, "Pool2DOptions",
            padding=padding, strideH=window.stride[0], strideW=window.stride[1],
            filterHeight=window.kernel[0], filterWidth=window.kernel[1],
            fusedActivationFunction=fused,
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
        shape, window.reach, window.stride, window.padding, strict=False
    ):
        total = max((-(-size // stride) - 1) * stride + k - size, 0)
        if given != (total // 2, total - total // 2):
            return False
    return True
