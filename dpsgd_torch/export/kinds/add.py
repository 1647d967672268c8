"""Addition of two tensors of one shape, as a residual connection does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.fixed_point import multiplier, requantize
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

LEFT_SHIFT = 20
"""Both inputs are counted in 2^-20 of twice the larger scale before they are added."""


@dataclass(frozen=True)
class Add(LayerKind):
    """First + second, of one shape, or (channels,) beside (1, 1, channels)."""

    takes_clamp = True

    def apply(self, *inputs: Floats) -> Floats:
        first, second = one_rank(*inputs)
        return np.asarray(first + second)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        return self.apply(*lows), self.apply(*highs)

    def lower(self, asked: Asked) -> int:
        first, second = asked.tensors
        twice = 2 * max(first.scale, second.scale)
        # Its factor, twice / (2^20 scale), must stay below one.
        after = asked.after(least=twice / (1 << LEFT_SHIFT) * (1 + 2.0**-20))
        low, high = asked.limits(after)
        operation = AddInt8(
            first=multiplier(first.scale / twice),
            second=multiplier(second.scale / twice),
            out=multiplier(twice / ((1 << LEFT_SHIFT) * after.scale)),
            low=low,
            high=high,
        )
        return asked.add(operation, after)

    def write_float(self, write: Writer, fused: int) -> None:
        write.file.operator(
            "ADD", list(write.sources), write.target, "AddOptions", fusedActivationFunction=fused
        )


def one_rank(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
    """(batch, channels) as (batch, 1, 1, channels) beside (batch, height, width, channels)."""
    rank = max(x.ndim for x in inputs)
    return [x.reshape(len(x), *[1] * (rank - x.ndim), *x.shape[1:]) for x in inputs]


@dataclass(frozen=True)
class AddInt8(OperationKind):
    """Each input and their sum scaled by a (multiplier, shift ≤ 0), rounded each time."""

    first: tuple[int, int]
    second: tuple[int, int]
    out: tuple[int, int]
    low: int = -128
    high: int = 127

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        total = np.zeros((), np.int64)
        both = one_rank(*inputs)
        for x, source, how in zip(both, sources, (self.first, self.second), strict=True):
            total = total + requantize((x - source.zero_point) << LEFT_SHIFT, *how)
        return np.clip(requantize(total, *self.out) + target.zero_point, self.low, self.high)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        numbers = [
            *(number for each in (self.first, self.second, self.out) for number in each),
            *(source.zero_point for source in sources),
            target.zero_point,
            self.low,
            self.high,
        ]
        told = ", ".join(str(number) for number in numbers)
        constants = f"static const model_addition {name} = {{{told}}};"
        call = f"model_add(&{name}, {target.size}, {{input0}}, {{input1}}, {{output}});"
        return StepText(("add",), call, (constants,))

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        code = write.fused((self.low, self.high), target)
        write.file.operator(
            "ADD", list(write.sources), write.target, "AddOptions", fusedActivationFunction=code
        )

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0
