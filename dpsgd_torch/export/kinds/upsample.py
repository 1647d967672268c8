"""A picture grown by repeating its cells: RESIZE_NEAREST_NEIGHBOR by whole factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsgd_torch.export.kinds.pick import Loops, Pick, Shape

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer


@dataclass(frozen=True)
class Upsample(Pick):
    """Each cell of what has shape ``given``, (height, width, channels), becomes down × across."""

    given: Shape
    down: int
    across: int

    @property
    def loops(self) -> Loops:
        height, width, channels = self.given
        line = width * channels
        return (height, line), (self.down, 0), (width, channels), (self.across, 0), (channels, 1)

    def write(self, write: Writer, kind: Any, quantization: dict[str, Any]) -> None:
        height, width, _ = self.given
        sides = np.array([height * self.down, width * self.across], np.int32)
        write.file.operator(
            "RESIZE_NEAREST_NEIGHBOR",
            [write.source, write.file.constant(f"layer_{write.index}.sides", sides)],
            write.target, "ResizeNearestNeighborOptions", alignCorners=False,
            halfPixelCenters=False,
        )  # fmt: skip
