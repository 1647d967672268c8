"""Another order of values in memory, where no layer before it can make them in that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.kinds.pick import Loops, Pick, Shape, is_short
from dpsgd_torch.export.kinds.view import reshaped

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

_MOST_AXES = 5
_MOST_IN_TFLM = 4  # beside the batch


@dataclass(frozen=True)
class Transpose(Pick):
    """What is read as ``sides`` has its axes put in ``order``."""

    sides: Shape
    order: Shape
    shape: Shape

    @property
    def loops(self) -> Loops:
        steps = [int(np.prod(self.sides[axis + 1 :])) for axis in range(len(self.sides))]
        return tuple((self.sides[axis], steps[axis]) for axis in self.order)

    def write(self, write: Writer, kind: Any, quantization: dict[str, Any]) -> None:
        if len(self.sides) > _MOST_IN_TFLM:
            raise ExportError(
                f"layer {write.index}: a transposition of {len(self.sides)} axes, of which "
                f"TensorFlow Lite Micro takes {_MOST_IN_TFLM}; use --to c"
            )
        name = f"layer_{write.index}"
        wide = reshaped(write, f"{name}.sides", write.source, self.sides, kind, quantization)
        turned = tuple(self.sides[axis] for axis in self.order)
        made = write.file.value(f"{name}.turned", turned, kind, **quantization)
        table = np.array([0, *(axis + 1 for axis in self.order)], np.int32)
        order = write.file.constant(f"{name}.order", table)
        write.file.operator("TRANSPOSE", [wide, order], made, "TransposeOptions")
        reshaped(write, f"{name}.shape", made, self.shape, kind, quantization, write.target)


def transposition(take: NDArray[np.intp], shape: Shape) -> Transpose | None:
    """Of a tensor whose value i was at ``take[i]``; None: it is no transposition of few axes.

    >>> transposition(np.arange(6).reshape(2, 3).T.reshape(-1), (3, 2))
    Transpose(sides=(2, 3), order=(1, 0), shape=(3, 2))
    """
    loops: list[tuple[int, int]] = []
    block, size = 1, take.size
    while block < size:
        step = int(take[block] - take[0])
        starts = take[::block]
        falls = np.flatnonzero(starts != starts[0] + step * np.arange(len(starts)))
        count = int(falls[0]) if len(falls) else len(starts)
        if count < 2 or (size // block) % count:
            return None
        loops.insert(0, (count, step))
        block *= count
    axes = sorted(range(len(loops)), key=lambda axis: -loops[axis][1])
    sides = tuple(loops[axis][0] for axis in axes)
    made = Transpose(sides, tuple(axes.index(axis) for axis in range(len(loops))), shape)
    whole = np.arange(size, dtype=np.intp)[None]
    fits = np.array_equal(made.apply(whole)[0], take)
    return made if fits and len(sides) <= _MOST_AXES and is_short(made.loops) else None
