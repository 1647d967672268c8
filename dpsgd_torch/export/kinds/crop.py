"""A part of a picture or of a vector: SLICE, or STRIDED_SLICE where it skips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsgd_torch.export.kinds.pick import Loops, Pick, Shape

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer


@dataclass(frozen=True)
class Crop(Pick):
    """From ``starts``, ``sizes`` values, each of ``steps``, along the axes of a ``given`` shape."""

    given: Shape
    starts: Shape
    sizes: Shape
    steps: Shape

    @property
    def offset(self) -> int:
        return int(np.ravel_multi_index(self.starts, self.given))

    @property
    def loops(self) -> Loops:
        apart = [
            int(np.prod(self.given[axis + 1 :])) * step for axis, step in enumerate(self.steps)
        ]
        return tuple(zip(self.sizes, apart, strict=True))

    def write(self, write: Writer, kind: Any, quantization: dict[str, Any]) -> None:
        first, last = np.array(self.starts), np.array(self.sizes)
        told = {"starts": (0, first), "sizes": (1, last)}
        skips = max(self.steps) > 1
        if skips:
            ends = first + (last - 1) * self.steps + 1
            told = {"starts": (0, first), "ends": (1, ends), "steps": (1, np.array(self.steps))}
        constants = [
            write.file.constant(
                f"layer_{write.index}.{what}", np.array([batch, *numbers], np.int32)
            )
            for what, (batch, numbers) in told.items()
        ]
        name = "StridedSlice" if skips else "Slice"
        operator = "STRIDED_SLICE" if skips else "SLICE"
        write.file.operator(operator, [write.source, *constants], write.target, f"{name}Options")
