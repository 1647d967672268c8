"""The fixed-point arithmetic of TensorFlow Lite Micro's int8 kernels, vectorised over arrays.

An int32 ``raw`` with k integer bits stands for raw / 2^(31 − k). Products are rounded to nearest by
the doubling high multiplication of ARM's NEON, quotients by powers of two to nearest with ties away
from zero [Jacob et al. 2018, Sec. 2.2 and App. B]. Arrays are int64 that hold int32 values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST_GAIN = 2.0**20
"""Of a rescaling: 255 times it stays below 2^28."""

_MAX, _MIN = 2**31 - 1, -(2**31)
_ONE = _MAX  # the nearest to 1 with no integer bits


def saturate(x: Ints) -> Ints:
    """To the range of int32."""
    return np.clip(x, _MIN, _MAX)


def high_product(a: Ints, b: Ints | int) -> Ints:
    """a b / 2^31, rounded to nearest, ties towards positive infinity; saturated.

    >>> high_product(np.array([1 << 30, -3, 3]), 1 << 30).tolist()
    [536870912, -1, 2]
    """
    product = np.asarray(a, np.int64) * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    quotient = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))  # towards zero, as C does
    return saturate(quotient)


def divide(x: Ints, exponent: Ints | int) -> Ints:
    """x / 2^exponent, rounded to nearest, ties away from zero.

    >>> divide(np.array([6, -6, 5, -5]), 2).tolist()
    [2, -2, 1, -1]
    """
    mask = np.left_shift(np.int64(1), exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return np.asarray((x >> exponent) + ((x & mask) > threshold))


def multiplier(real: float) -> tuple[int, int]:
    """(m, shift) with real = m/2^31 × 2^shift, m in [2^30, 2^31), or (0, 0) for what is too small.

    >>> multiplier(0.75)
    (1610612736, 0)
    """
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    fixed = math.floor(fraction * 2**31 + 0.5)
    if fixed == 2**31:
        fixed, shift = fixed // 2, shift + 1
    if shift < -31:
        return 0, 0
    return (fixed, shift) if shift <= 30 else (_MAX, 30)


def requantize(x: Ints, multiplier: Ints | int, shift: Ints | int) -> Ints:
    """x × multiplier/2^31 × 2^shift, rounded twice as TFLM does.

    >>> requantize(np.array([100, -100]), 1 << 30, -1).tolist()
    [25, -25]
    """
    left, right = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    return divide(high_product(np.left_shift(x, left), multiplier), right)


def input_radius(integer_bits: int, shift: int) -> int:
    """The largest difference that stays in range with so many integer bits."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits) / 2.0**shift)


def exp_of_negative(a: Ints, integer_bits: int) -> Ints:
    """exp of a ≤ 0, to no integer bits.

    The last quarter by a series, the rest by the factors exp(−2^k) of its binary digits.

    >>> round(int(exp_of_negative(np.array([-1 << 26]), 5)[0]) / 2**31, 6)
    0.36788
    """
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    within = (a & (quarter - 1)) - quarter
    result = _exp_of_last_quarter(saturate(within << integer_bits))
    rest = within - a
    for factor, exponent in zip(_EXP_FACTORS, range(-2, integer_bits), strict=False):
        digit = rest & (1 << (fraction + exponent))
        result = np.where(digit != 0, high_product(result, factor), result)
    return np.where(a == 0, _ONE, result)


_EXP_FACTORS = [min(round(math.exp(-(2.0**k)) * 2**31), _MAX) for k in range(-2, 5)]
_EXP_EIGHTH, _THIRD = round(math.exp(-0.125) * 2**31), round(2**31 / 3)


def _exp_of_last_quarter(a: Ints) -> Ints:
    """exp on [−1/4, 0): the fourth-order series around −1/8."""
    x = a + (1 << 28)
    x2 = high_product(x, x)
    x3 = high_product(x2, x)
    x4 = high_product(x2, x2)
    tail = divide(high_product(divide(x4, 2) + x3, _THIRD) + x2, 1)
    return _EXP_EIGHTH + high_product(x + tail, _EXP_EIGHTH)


def _reciprocal_of_half(a: Ints) -> Ints:
    """2/(1 + a) for a in [0, 1] by Newton's iteration, with two integer bits."""
    total = a + _ONE
    half = (total + np.where(total >= 0, 1, -1)) >> 1
    x = round(48 / 17 * 2**29) + high_product(half, -round(32 / 17 * 2**29))
    for _ in range(3):
        error = (1 << 29) - high_product(half, x)
        x = x + saturate(high_product(x, error) << 2)
    return x


def reciprocal_of_one_plus(a: Ints) -> Ints:
    """1/(1 + a) for a in [0, 1], no integer bits."""
    return saturate(_reciprocal_of_half(a) << 1)


def logistic(a: Ints) -> Ints:
    """1/(1 + exp(−a)) for a with four integer bits, to no integer bits."""
    positive = reciprocal_of_one_plus(exp_of_negative(-np.abs(a), 4))
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, _ONE - positive))


def tanh(a: Ints) -> Ints:
    """tanh of a with four integer bits, to no integer bits."""
    x = _reciprocal_of_half(exp_of_negative(-np.abs(a), 5))  # exp(2a): a bit more before the point
    positive = saturate((x - (1 << 29)) << 2)
    return np.where(a == 0, 0, np.where(a > 0, positive, -positive))
