"""Concatenation along the last axis: of pictures' channels, or of vectors.

TFLM copies: all inputs must have the output's grid. What only a concatenation reads is made on it
in the first place (``lowering``); what others read too gets a requantisation before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.fixed_point import MOST_GAIN
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.kinds.requantize import on_grid
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

_MOST = 10  # inputs of TFLM's kernel


@dataclass(frozen=True)
class Concat(LayerKind):
    """The inputs one after the other in the last axis; flattened if their other axes differ."""

    one_grid = True

    def apply(self, *inputs: Floats) -> Floats:
        return _joined(inputs)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(*lows), self.apply(*highs)

    def lower(self, asked: Asked) -> int:
        if len(asked.sources) > _MOST:
            raise ExportError(
                f"operator = Concat: of {len(asked.sources)} tensors; TensorFlow Lite Micro takes "
                f"{_MOST} at most: concatenate some of them first"
            )
        after = asked.after(least=max(tensor.scale for tensor in asked.tensors) / MOST_GAIN)
        parts = [on_grid(asked.into, source, after) for source in asked.sources]
        return asked.into.add(ConcatInt8(), after, *parts)

    def write_float(self, write: Writer, fused: int) -> None:
        _write(write, np.float32, {})


@dataclass(frozen=True)
class ConcatInt8(OperationKind):
    """All tensors share scale and zero point."""

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        return _joined(inputs)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        rows, stride = target.size // target.shape[-1], target.shape[-1]
        calls, at = [], 0
        for which, source in enumerate(sources):
            part = source.size // rows
            there = f"{{output}} + {at}" if at else "{output}"
            calls.append(f"model_join({rows}, {part}, {stride}, {{input{which}}}, {there});")
            at += part
        return StepText(("copy", "join"), "\n    ".join(calls))

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        _write(write, np.int8, {"scale": target.scale, "zero_point": target.zero_point})


def _joined(inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({x.shape[:-1] for x in inputs}) > 1:
        inputs = [x.reshape(len(x), -1) for x in inputs]
    return np.concatenate(inputs, axis=-1)


def _write(write: Writer, kind: Any, quantization: dict[str, Any]) -> None:
    parts = list(write.sources)
    if len({shape[:-1] for shape in write.shapes}) > 1:
        for which, shape in enumerate(write.shapes):
            name = f"layer_{write.index}.flat_{which}"
            flat = write.file.value(name, (int(np.prod(shape)),), kind, **quantization)
            write.file.operator(
                "RESHAPE",
                [
                    parts[which],
                    write.file.constant(f"{name}.shape", np.array([1, np.prod(shape)], np.int32)),
                ],
                flat,
                "ReshapeOptions",
            )
            parts[which] = flat
    write.file.operator("CONCATENATION", parts, write.target, "ConcatenationOptions", axis=-1)
