"""Hard swish, x × relu6(x + 3) / 6, in TFLM's 16-bit steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.fixed_point import Ints, multiplier
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.kinds.lookup import EVERY, Lookup
from dpsgd_torch.export.lowering import Asked, LayerKind, Real, agreed
from dpsgd_torch.export.program import Int8, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

_MOST_SCALE = 1e7  # beyond, TFLM would shift by more than an int32 has
_BOTTOM = -1.5  # where it is least


@dataclass(frozen=True)
class HardSwish(LayerKind):
    """Zero below −3, x above 3, smooth between; least at −1.5, −0.375."""

    def apply(self, *inputs: Floats) -> Floats:
        x = inputs[0]
        return np.asarray(x * np.clip(x + 3, 0, 6) / 6, x.dtype)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        low, high = lows[0], highs[0]
        ends = self.apply(low), self.apply(high)
        nearest = np.clip(np.full_like(low, _BOTTOM), low, high)
        return np.minimum(self.apply(nearest), 0), np.maximum(*ends)

    def lower(self, asked: Asked) -> int:
        before = asked.before
        if before.scale > _MOST_SCALE:
            raise ExportError(
                f"operator = HardSwish: values of a scale of {before.scale:.3g}; only below "
                f"{_MOST_SCALE:g} can it be carried: train the model again with a lower learning "
                "rate"
            )
        # Its factor, a 128th of the scale over the output's, must stay below one.
        after = asked.after(least=before.scale / 128 * (1 + 2.0**-20))
        after = agreed(after, lambda after, real: _table(before, after, real))
        return asked.add(HardSwishInt8(_table(before, after)), after)

    def write_float(self, write: Writer, fused: int) -> None:
        _write(write)


@dataclass(frozen=True, eq=False)
class HardSwishInt8(Lookup):
    """Input and output have scales of their own."""

    function = "hard_swish"

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        _write(write)


def _table(before: Tensor, after: Tensor, real: Real = np.float64) -> Int8:
    """x × (x/3 clipped to ±1, + 1) / 2, in int16: the bracket has 15 fractional bits."""
    fine = real(before.scale / 128)
    factor, shift = _short(float(fine / real(after.scale)))
    gate_factor, gate_shift = _short(float(fine / real(3 / 32768)))
    x = (EVERY - before.zero_point) * 128
    gate = x
    if gate_shift > 0:
        gate = _int16(gate << (gate_shift - 1))
    gate = _high_product(gate, gate_factor)
    gate = _int16(gate << 1) if gate_shift > 0 else _divide(gate, -gate_shift)
    product = _towards_zero(((gate + (1 << 15)) >> 1) * _high_product(x, factor))
    return np.clip(_divide(product, -shift) + after.zero_point, -128, 127).astype(np.int8)


def _short(real: float) -> tuple[int, int]:
    """(16-bit multiplier, shift)."""
    m, shift = multiplier(real)
    return min((m + (1 << 15)) >> 16, 2**15 - 1), shift


def _int16(x: Ints) -> Ints:
    return np.clip(x, -(2**15), 2**15 - 1)


def _high_product(a: Ints, b: int) -> Ints:
    """a b / 2^15, rounded to nearest, ties towards positive infinity."""
    product = a * b
    return _int16(_towards_zero(product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))))


def _towards_zero(x: Ints) -> Ints:
    """x / 2^15."""
    return np.where(x >= 0, x >> 15, -(-x >> 15))


def _divide(x: Ints, exponent: int) -> Ints:
    """x / 2^exponent, ties away from zero, by a mask of 16 bits, which ends at exponent 15."""
    mask = (1 << exponent) - 1 if exponent < 16 else -1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def _write(write: Writer) -> None:
    write.file.operator("HARD_SWISH", [write.source], write.target, "HardSwishOptions")
