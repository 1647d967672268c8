"""Product of two tensors: of one shape, or one of them by channel or by cell (squeeze-excite)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.fixed_point import MOST_GAIN, multiplier, requantize
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.kinds.add import one_rank
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

Shape = tuple[int, ...]


def product_shape(first: Shape, second: Shape) -> Shape | None:
    """Of the product of tensors of these shapes, channels last; None: it cannot be made here.

    >>> product_shape((5, 4, 3), (3,)), product_shape((5, 4, 3), (5, 1, 3))
    ((5, 4, 3), None)
    """
    try:
        wide = np.broadcast_shapes(first, second)
    except ValueError:
        return None
    fit = all(_strides(shape, wide) is not None for shape in (first, second))
    return wide if fit else None


@dataclass(frozen=True)
class Mul(LayerKind):
    """First × second, of shapes that have a ``product_shape``."""

    takes_clamp = True

    def apply(self, *inputs: Floats) -> Floats:
        first, second = one_rank(*inputs)
        return np.asarray(first * second)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        corners = [self.apply(a, b) for a in (lows[0], highs[0]) for b in (lows[1], highs[1])]
        return np.minimum.reduce(corners), np.maximum.reduce(corners)

    def lower(self, asked: Asked) -> int:
        first, second = asked.tensors
        one = first.scale * second.scale
        after = asked.after(least=one / (MOST_GAIN / 256))  # the largest product is 255 × 255
        operation = MulInt8(*multiplier(one / after.scale), *asked.limits(after))
        return asked.add(operation, after)

    def write_float(self, write: Writer, fused: int) -> None:
        _write(write, fused)


@dataclass(frozen=True)
class MulInt8(OperationKind):
    """The product of both, less their zero points, times (multiplier, shift)."""

    multiplier: int
    shift: int
    low: int = -128
    high: int = 127

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        first, second = (x - t.zero_point for x, t in zip(inputs, sources, strict=True))
        scaled = requantize(np.multiply(*one_rank(first, second)), self.multiplier, self.shift)
        return np.clip(scaled + target.zero_point, self.low, self.high)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        shape = target.shape
        strides = [_strides(source.shape, shape) or (0, 0) for source in sources]
        numbers = [
            target.size // shape[-1], shape[-1], *strides[0], *strides[1],
            self.multiplier, -self.shift, *(source.zero_point for source in sources),
            target.zero_point, self.low, self.high,
        ]  # fmt: skip
        told = ", ".join(map(str, numbers))
        constants = f"static const model_product {name} = {{{told}}};"
        return StepText(("mul",), f"model_mul(&{name}, {{input0}}, {{input1}}, {{output}});",
                        (constants,))  # fmt: skip

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        _write(write, write.fused((self.low, self.high), target))

    def lead(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0 if sources[which].shape == target.shape else None

    @property
    def only_down(self) -> bool:
        return self.shift < 0


def _strides(shape: Shape, wide: Shape) -> tuple[int, int] | None:
    """(from cell to cell, from channel to channel) of what is read for an output ``wide``."""
    cells, channels = int(np.prod(wide[:-1])), wide[-1]
    told = (int(np.prod(shape[:-1])), shape[-1])
    if told[0] not in (1, cells) or told[1] not in (1, channels):
        return None
    return (0 if told[0] < cells else told[1], 0 if told[1] < channels else 1)


def _write(write: Writer, fused: int) -> None:
    write.file.operator(
        "MUL", list(write.sources), write.target, "MulOptions", fusedActivationFunction=fused
    )
