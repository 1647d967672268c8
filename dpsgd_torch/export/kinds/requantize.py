"""QUANTIZE from int8 to int8: the same reals on another grid, where an operator wants one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.fixed_point import MOST_GAIN, multiplier, requantize
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.lowering import Lowering
    from dpsgd_torch.export.tflite_write import Writer


def on_grid(into: Lowering, source: int, wanted: Tensor) -> int:
    """The tensor with the scale and zero point of another; itself if it has them.

    ``wanted.scale`` is at least ``MOST_GAIN``-th of its own.
    """
    tensor = into.tensors[source]
    if (tensor.scale, tensor.zero_point) == (wanted.scale, wanted.zero_point):
        return source
    assert tensor.scale <= wanted.scale * MOST_GAIN, (tensor, wanted)
    operation = RequantizeInt8(*multiplier(tensor.scale / wanted.scale))
    return into.add(operation, Tensor(tensor.shape, wanted.scale, wanted.zero_point), source)


@dataclass(frozen=True)
class RequantizeInt8(OperationKind):
    """One factor for all, (multiplier, shift)."""

    multiplier: int
    shift: int

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        scaled = requantize(inputs[0] - sources[0].zero_point, self.multiplier, self.shift)
        return np.clip(scaled + target.zero_point, -128, 127)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        numbers = (target.size, sources[0].zero_point, self.multiplier, -self.shift)
        told = ", ".join(map(str, (*numbers, target.zero_point, -128, 127)))
        return StepText(("rescale",), f"model_rescale({told}, {{input}}, {{output}});")

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        write.file.operator("QUANTIZE", [write.source], write.target, "QuantizeOptions")

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0

    @property
    def only_down(self) -> bool:
        return self.shift < 0
