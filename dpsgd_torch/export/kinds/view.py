"""The same bytes counted in another shape: nothing in C, RESHAPE in TensorFlow Lite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class View(LayerKind):
    """Of one example."""

    shape: Shape

    @property
    def keeps_grid(self) -> bool:
        return True

    def apply(self, *inputs: Floats) -> Floats:
        return inputs[0].reshape(-1, *self.shape)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(lows[0]), self.apply(highs[0])

    def lower(self, asked: Asked) -> int:
        before = asked.before
        return asked.add(ViewInt8(), Tensor(self.shape, before.scale, before.zero_point))

    def write_float(self, write: Writer, fused: int) -> None:
        reshaped(write, f"layer_{write.index}.shape", write.source, self.shape, np.float32, {},
                 write.target)  # fmt: skip


@dataclass(frozen=True)
class ViewInt8(OperationKind):
    """What reads it reads what it reads, except where it is the model's output."""

    same_bytes = True

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        return inputs[0].reshape(-1, *target.shape)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        return StepText(("copy",), f"model_copy({{output}}, {{input}}, {target.size});")

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        told = {"scale": target.scale, "zero_point": target.zero_point}
        reshaped(write, f"layer_{write.index}.shape", write.source, target.shape, np.int8, told,
                 write.target)  # fmt: skip


def reshaped(
    write: Writer, name: str, source: int, shape: Shape, kind: Any, quantization: dict[str, Any],
    target: int | None = None,
) -> int:  # fmt: skip
    """A tensor of the file in another shape, made for it if none is given."""
    made = write.file.value(name, shape, kind, **quantization) if target is None else target
    sides = write.file.constant(f"{name}.sides", np.array([1, *shape], np.int32))
    write.file.operator("RESHAPE", [source, sides], made, "ReshapeOptions")
    return made
