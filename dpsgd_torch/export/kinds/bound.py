"""Saturation of a tensor on its own grid, as a step: MAXIMUM and MINIMUM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.clamps import FREE, Limits
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer


@dataclass(frozen=True)
class ClampInt8(OperationKind):
    """Input and output share scale and zero point."""

    ends: Limits

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        return np.clip(inputs[0], *self.ends)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        low, high = self.ends
        call = f"model_bound({target.size}, {low}, {high}, {{input}}, {{output}});"
        return StepText(("bound",), call)

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        told = {
            name: np.array([end], np.int8)
            for name, end, free in zip(("MAXIMUM", "MINIMUM"), self.ends, FREE, strict=True)
            if end != free or (name, self.ends) == ("MAXIMUM", FREE)
        }
        write_ends(write, told, {"scale": target.scale, "zero_point": target.zero_point})

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0


def write_ends(
    write: Writer, ends: dict[str, NDArray[Any]], quantization: dict[str, float]
) -> None:
    at = write.source
    for left, (name, end) in enumerate(ends.items(), start=1 - len(ends)):
        value = f"layer_{write.index}.{name.lower()}"
        there = write.target
        if left < 0:
            there = write.file.value(f"{value}.kept", write.shape, end.dtype, **quantization)
        constant = write.file.constant(value, end, **quantization)
        write.file.operator(name, [at, constant], there, "MaximumMinimumOptions")
        at = there
