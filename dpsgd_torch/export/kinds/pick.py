"""Copies by a rule: a transposition, a part of a picture or vector, a picture grown by repeating.

Each is five loops over the source and a run of bytes that lie together there: one kernel in C.
"""

from __future__ import annotations

from abc import abstractmethod
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

LOOPS = 5

Shape = tuple[int, ...]
Loops = tuple[tuple[int, int], ...]
"""(count, how far apart in the source) of each, the outermost first."""


def merged(loops: Loops) -> Loops:
    """The same without loops that two can be one.

    >>> merged(((2, 12), (3, 4), (1, 9), (4, 1)))
    ((24, 1),)
    """
    found: list[tuple[int, int]] = []
    for count, step in loops:
        if count == 1:
            continue
        if found and found[-1][1] == count * step:
            found[-1] = (found[-1][0] * count, step)
        else:
            found.append((count, step))
    return tuple(found) or ((1, 1),)


def is_short(loops: Loops) -> bool:
    """Whether the kernel has loops enough."""
    loops = merged(loops)
    return len(loops) - (loops[-1][1] == 1) <= LOOPS


def picked(x: NDArray[Any], loops: Loops, offset: int) -> NDArray[Any]:
    """(batch, …) → (batch, values)."""
    places = np.zeros((), np.intp) + offset
    for count, step in loops:
        places = places[..., None] + np.arange(count) * step
    return x.reshape(len(x), -1)[:, places.reshape(-1)]


class Pick(LayerKind):
    """Which values are copied, in the order in which they are written."""

    @property
    def offset(self) -> int:
        """Of the first."""
        return 0

    @property
    def keeps_grid(self) -> bool:
        return True

    @property
    @abstractmethod
    def loops(self) -> Loops: ...

    @abstractmethod
    def write(self, write: Writer, kind: Any, quantization: dict[str, Any]) -> None:
        """TensorFlow Lite's operator, in integers or not."""

    def apply(self, *inputs: Floats) -> Floats:
        return picked(inputs[0], self.loops, self.offset)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(lows[0]), self.apply(highs[0])

    def lower(self, asked: Asked) -> int:
        before = asked.before
        return asked.add(PickInt8(self), Tensor(asked.shape, before.scale, before.zero_point))

    def write_float(self, write: Writer, fused: int) -> None:
        self.write(write, np.float32, {})


@dataclass(frozen=True)
class PickInt8(OperationKind):
    """Input and output share scale and zero point."""

    how: Pick

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        return picked(inputs[0], self.how.loops, self.how.offset)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        *outer, last = merged(self.how.loops)
        run = last[0] if last[1] == 1 else 1
        outer += [] if last[1] == 1 else [last]
        outer = [(1, 0)] * (LOOPS - len(outer)) + outer
        counts, steps = (", ".join(str(each[i]) for each in outer) for i in (0, 1))
        constants = f"static const model_picked {name} = {{{{{counts}}}, {{{steps}}}, {run}}};"
        start = f"{{input}} + {self.how.offset}" if self.how.offset else "{input}"
        return StepText(("copy", "pick"), f"model_pick(&{name}, {start}, {{output}});",
                        (constants,))  # fmt: skip

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        self.how.write(write, np.int8, {"scale": target.scale, "zero_point": target.zero_point})
