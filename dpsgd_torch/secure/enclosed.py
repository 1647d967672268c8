"""Decisions that floats leave open, made by whole numbers: enclosures of exp, and more bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count

More = Callable[[], int]  # 64 uniform bits

_GUARD = 64  # bits beyond those asked for; an enclosure holds whatever it is


def exp_minus(x: Fraction, bits: int) -> tuple[int, int]:
    """Whole numbers around exp(−x) · 2^bits, for x ≥ 0.

    Halved until it is below 1/2, then Taylor's series of exp, whose terms are all positive and of
    which those left out sum to less than the last, then squared as often; each rounded outwards.

    >>> low, high = exp_minus(Fraction(1), 30)
    >>> low / 2**30, high - low <= 1
    (0.36787944..., True)
    """
    point = bits + _GUARD
    halvings = max(0, (x.numerator // x.denominator).bit_length() + 1)
    one, scaled = 1 << point, (x.numerator << point) // (x.denominator << halvings)
    least, most = _exp(scaled, one, 0), _exp(scaled + 1, one, 1)
    low, high = (one * one) // most, (one * one) // least + 1
    for _ in range(halvings):
        low, high = (low * low) >> point, ((high * high) >> point) + 1
    return low >> _GUARD, min((high >> _GUARD) + 1, 1 << bits)


def accepts(x: Fraction, drawn: int, bits: int, more: More) -> bool:
    """Whether a uniform real that begins with the ``bits`` of ``drawn`` is below exp(−x)."""
    while True:
        low, high = exp_minus(x, bits)
        if drawn + 1 <= low:
            return True
        if drawn >= high:
            return False
        drawn, bits = (drawn << 64) | more(), bits + 64


def shares(rate: Fraction, bits: int) -> Iterator[tuple[int, int]]:
    """Around 2^bits · P(C ≤ c), for c = 0, 1, …, where P(c) ∝ exp(−rate c²), c ≥ 0.

    The weights beyond N are at most exp(−rate N²) / (1 − exp(−rate)).
    """
    point = bits + _GUARD
    weights, total = [], [0, 0]
    least = exp_minus(rate, point)[1]
    for c in count():
        low, high = exp_minus(rate * c * c, point)
        weights.append((low, high))
        total = [total[0] + low, total[1] + high]
        if high <= 1:  # in units of 2^−point
            break
    total[1] += (weights[-1][1] << point) // ((1 << point) - least) + 1
    low = high = 0
    for each_low, each_high in weights:
        low, high = low + each_low, high + each_high
        yield (low << bits) // total[1], min((high << bits) // total[0] + 1, 1 << bits)


def located(rate: Fraction, drawn: int, bits: int, more: More) -> int:
    """The c at which a uniform real that begins with the ``bits`` of ``drawn`` falls."""
    while True:
        for c, (low, high) in enumerate(shares(rate, bits)):
            if drawn + 1 <= low:
                return c
            if drawn < high:
                break
        drawn, bits = (drawn << 64) | more(), bits + 64


def thresholds(rate: Fraction, bits: int) -> list[int]:
    """⌊2^bits · P(C ≤ c)⌋ for c = 0, 1, … up to the first that is 2^bits − 1.

    Of a uniform word u with u < threshold c it is known that C ≤ c, and with u > threshold c that
    C > c; where they are equal more bits decide.

    >>> thresholds(Fraction(1, 2), 8)
    [146, 234, 254, 255]
    """
    found: list[int] = []
    for low, high in shares(rate, bits + 64):
        at = low >> 64
        if at != (high - 1) >> 64 and at < (1 << bits) - 1:
            raise ArithmeticError(
                f"threshold {len(found)} of rate {rate}: lies within 2^-64 of a whole number"
            )  # a chance of 2^-60
        found.append(at)
        if at == (1 << bits) - 1:
            break
    return found


def _exp(y: int, one: int, up: int) -> int:
    """exp(y / one) · one for y < one / 2 + 1: no more than it, or with ``up`` no less."""
    term, total, k = one, one, 0
    while term > up:
        k += 1
        term = (term * y) // (one * k) + up
        total += term
    return total + 2 * up
