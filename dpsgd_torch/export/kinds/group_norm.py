"""Group, layer and instance normalization: statistics of one example, computed in integers.

Of a group's n int8 values q let S = Σ q and V = n Σ q² − S², a whole number: n² times the
variance, and with eps in the same units W = V + n² eps/scale². A value normalized is
(n q − S) / √W; scale and zero point fall out. W is shifted left by an even number of bits to
[2^62, 2^64), and of its upper half m the inverse square root is taken in 31 bits by a line (within
0.102 of it) and four of Newton's steps, r ← r (3 − m r²) / 2: 0.016, 4e-4, 2e-7, and what rounding
leaves, below 2^-28. With ``fraction`` bits, each channel then has a whole gain A and an offset O,
of q = 0, and the output is (A q + O) / 2^fraction, rounded down once: O holds the half.

Nothing overflows: n ≤ 65,536, so Σ q² ≤ 2^30, V < 2^46, W < 2^62 by the choice of its bits.
|n q − S| ≤ √((n − 1) V) [Samuelson 1968], so A q + O is at most 2^fraction (|gain| √(n − 1) +
|bias|)/output scale and 128.5 more; and if V is not 0 it is n − 1 or more, so A is below twice the
first. ``fraction`` is the most bits with which both stay below 2^31. A q and O may wrap: their sum
does not. Where V is 0, A is 0, whatever eps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.c_text import StepText
from dpsgd_torch.export.graph import Floats
from dpsgd_torch.export.lowering import Asked, LayerKind
from dpsgd_torch.export.program import Int32, OperationKind, Tensor

if TYPE_CHECKING:
    from dpsgd_torch.export.tflite_write import Writer

MOST = 65_536
"""Values of a group."""

_LEAST_FRACTION, _MOST_FRACTION = 12, 20
_MEAN_BITS = 23  # of the mean's fraction
_ROOM = 2.0**31 * (1 - 2.0**-10)


@dataclass(frozen=True)
class Groups:
    """A tensor as (rows, positions, groups, depth): a group is a row's positions × depth.

    GroupNorm over (height, width, channels): (1, height × width, groups, channels / groups);
    LayerNorm of each cell's channels: (height × width, 1, 1, channels).
    """

    rows: int
    positions: int
    groups: int
    depth: int

    @property
    def count(self) -> int:
        """Values of a group."""
        return self.positions * self.depth

    def of(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """(batch, rows, positions, groups, depth)."""
        return x.reshape(len(x), self.rows, self.positions, self.groups, self.depth)


@dataclass(frozen=True, eq=False)
class GroupNorm(LayerKind):
    """(x − mean) / √(variance + epsilon) × gain + bias; gain and bias of groups × depth."""

    groups: Groups
    gain: Floats
    bias: Floats
    epsilon: float

    takes_clamp = True

    def apply(self, *inputs: Floats) -> Floats:
        x = np.asarray(self.groups.of(inputs[0]), np.float64)
        off = x - x.mean(axis=(2, 4), keepdims=True)
        spread = np.square(off).mean(axis=(2, 4), keepdims=True) + self.epsilon
        hat = np.divide(off, np.sqrt(spread), out=np.zeros_like(off), where=spread > 0)
        made = hat * self._by_channel(self.gain) + self._by_channel(self.bias)
        return made.reshape(inputs[0].shape).astype(inputs[0].dtype)

    def bounds(self, lows: Sequence[Floats], highs: Sequence[Floats]) -> tuple[Floats, Floats]:
        """No value of n is further than √(n − 1) deviations from their mean."""
        shape = lows[0].shape
        low = np.asarray(self.groups.of(lows[0]), np.float64).min(axis=(2, 4), keepdims=True)
        high = np.asarray(self.groups.of(highs[0]), np.float64).max(axis=(2, 4), keepdims=True)
        far = np.full(self.groups.of(lows[0]).shape, math.sqrt(self.groups.count - 1))
        if self.epsilon > 0:
            far = np.minimum(far, (high - low) / math.sqrt(self.epsilon))
        reach = far * np.abs(self._by_channel(self.gain))
        bias = self._by_channel(self.bias)
        return (bias - reach).reshape(shape), (bias + reach).reshape(shape)

    def lower(self, asked: Asked) -> int:
        n = self.groups.count
        if n > MOST:
            raise ExportError(
                f"operator = GroupNorm: {n:,} values in a group; its sums keep to 32 bits up to "
                f"{MOST:,}: more groups, or normalize after pooling"
            )
        gain, bias = self.gain.astype(np.float64), self.bias.astype(np.float64)
        reach = 2 * math.sqrt(n - 1) * np.abs(gain) + np.abs(bias)
        after = asked.after(least=float(reach.max()) / 2 ** (30 - _LEAST_FRACTION))
        most = float(reach.max()) / after.scale + 130
        fraction = min(_MOST_FRACTION, math.floor(math.log2(_ROOM / most)))
        widen, epsilon = _epsilon(n, self.epsilon, asked.before.scale)
        # gain n / output scale, with the bits of `fraction`, of W and of its root
        units = gain * n / after.scale * 2.0**fraction * 2.0 ** (widen // 2 - 31)
        exponent = math.frexp(float(np.abs(units).max()))[1]
        whole = np.round(units * 2.0 ** (31 - exponent))
        offsets = np.round((bias / after.scale + after.zero_point + 0.5) * 2.0**fraction)
        low, high = asked.limits(after)
        operation = GroupNormInt8(
            groups=self.groups,
            gain=np.clip(whole, 1 - 2**31, 2**31 - 1).astype(np.int32),
            offset=offsets.astype(np.int32),
            epsilon=epsilon,
            widen=max(widen, -63),
            down=62 - exponent,
            fraction=fraction,
            low=low,
            high=high,
        )
        return asked.add(operation, after)

    def write_float(self, write: Writer, fused: int) -> None:
        _refuse_tflite()

    def _by_channel(self, values: Floats) -> NDArray[np.float64]:
        return values.astype(np.float64).reshape(self.groups.groups, self.groups.depth)


@dataclass(frozen=True, eq=False)
class GroupNormInt8(OperationKind):
    """See the module. ``widen``: W's bits beyond V's, even; ``down``: of root × gain → A."""

    groups: Groups
    gain: Int32  # (groups × depth,)
    offset: Int32
    epsilon: int
    widen: int
    down: int
    fraction: int
    low: int = -128
    high: int = 127

    @property
    def constant_bytes(self) -> int:
        return 8 * len(self.gain) + 60

    def carry_out(
        self, inputs: Sequence[NDArray[np.int64]], sources: Sequence[Tensor], target: Tensor
    ) -> NDArray[np.int64]:
        q = self.groups.of(inputs[0]).astype(np.int64)
        n = self.groups.count
        total = q.sum(axis=(2, 4), keepdims=True)
        varies = n * np.square(q).sum(axis=(2, 4), keepdims=True) - np.square(total)
        wide = varies << self.widen if self.widen >= 0 else varies >> -self.widen
        spread = (wide + self.epsilon).astype(np.uint64) | np.uint64(1)
        down = np.full(spread.shape, self.down, np.int64)
        while (small := spread < np.uint64(1 << 62)).any():
            spread = np.where(small, spread << np.uint64(2), spread)
            down -= small
        down = np.clip(down, 1, 63)
        root = np.where(varies > 0, inverse_root(spread >> np.uint64(32)), 0)
        reciprocal, bits = _reciprocal(n)
        mean = (total * reciprocal + (1 << (bits - 1))) >> bits
        shape = (self.groups.groups, self.groups.depth)
        gain = (self.gain.astype(np.int64).reshape(shape) * root + (1 << (down - 1))) >> down
        shift = (gain * mean + (1 << (_MEAN_BITS - 1))) >> _MEAN_BITS
        offset = self.offset.astype(np.int64).reshape(shape) - shift
        made = np.clip((gain * q + offset) >> self.fraction, self.low, self.high)
        return made.reshape(inputs[0].shape)

    def write_c(self, name: str, sources: Sequence[Tensor], target: Tensor) -> StepText:
        from dpsgd_torch.export.c_text import literal

        pairs = ", ".join(
            f"{{{literal(gain)}, {literal(offset)}}}"
            for gain, offset in zip(self.gain.tolist(), self.offset.tolist(), strict=True)
        )
        rows, positions, groups, depth = (
            self.groups.rows, self.groups.positions, self.groups.groups, self.groups.depth
        )  # fmt: skip
        numbers = [
            *(rows, positions, groups, depth, self.widen, *_reciprocal(self.groups.count)),
            *(self.down, self.fraction),
        ]
        constants = (
            f"static const model_norm_channel {name}_channels[{len(self.gain)}] = {{{pairs}}};",
            f"static const model_norm {name} = {{INT64_C({self.epsilon}), {name}_channels, "
            + ", ".join(str(number) for number in numbers)
            + "};",
        )
        scratch = 8 * len(self.gain) if positions > 1 else 0
        # As arguments: where all calls give the same, compilers take them for constants.
        call = f"model_group_norm(&{name}, {self.low}, {self.high}, {{input}}, {{output}}, "
        call += "{scratch});" if scratch else "0);"
        return StepText(("lanes", "group_norm"), call, constants, scratch)

    def write_tflite(self, write: Writer, sources: Sequence[Tensor], target: Tensor) -> None:
        _refuse_tflite()

    def lead_alone(self, which: int, sources: Sequence[Tensor], target: Tensor) -> int | None:
        return 0  # elsewhere it would write over groups that are still to be read


def inverse_root(x: NDArray[np.uint64]) -> NDArray[np.int64]:
    """1/√(x/2^30) for x in [2^30, 2^32), in 31 bits: a line and four of Newton's steps.

    >>> [round(int(r) / 2**31, 8) for r in inverse_root(np.array([1 << 30, 1 << 31], np.uint64))]
    [1.0, 0.70710678]
    """
    root = np.uint64(2362232013) - ((x * np.uint64(1395864371)) >> np.uint64(32))
    for _ in range(4):
        near_one = (x * ((root * root) >> np.uint64(32))) >> np.uint64(30)
        root = (root * (np.uint64(3 << 30) - near_one)) >> np.uint64(31)
    return np.minimum(root.astype(np.int64), 2**31 - 1)


def _epsilon(n: int, epsilon: float, scale: float) -> tuple[int, int]:
    """(bits, n² epsilon/scale² × 2^bits): as many, an even number, as leave W below 2^62."""
    real = n * n * epsilon / (scale * scale)
    most = (127.5 * n) ** 2 + real
    bits = 2 * math.floor((61.9 - math.log2(most)) / 2)
    return bits, round(math.ldexp(real, bits))


def _reciprocal(n: int) -> tuple[int, int]:
    """(r, bits) with 2^23/n = r/2^bits and r in [2^30, 2^31).

    >>> _reciprocal(1), _reciprocal(3)
    ((1073741824, 7), (1431655765, 9))
    """
    bits = 30 - _MEAN_BITS + (n - 1).bit_length()
    return round((1 << (_MEAN_BITS + bits)) / n), bits


def _refuse_tflite() -> NoReturn:
    raise ExportError(
        "operator = GroupNorm: TensorFlow Lite has no such operator; use --to c, or train with "
        "dpsgd_torch.WeightStandardizedConv2d in place of norms, which exports as a plain Conv"
    )
