"""Discrete Gaussian noise on the integers, sampled exactly, many at a time.

P(k) ∝ exp(−k²/(2σ²)) [Canonne, Kamath, Steinke 2020], σ any positive double, taken for the rational
it is. As there, a magnitude and a sign are proposed, minus zero is refused, and the magnitude is
accepted by a coin; the proposal differs, so that whole arrays go through at once:

    magnitude m = cW + f:   W = 2^w ≤ σ/16 (1 for a small σ),   P(c) ∝ exp(−(cW)²/(2σ²)),
    f uniform in 0 … W − 1,   accepted with probability exp(−x),   x = f (2cW + f) / (2σ²),

which leaves P(m) ∝ exp(−m²/(2σ²)), and accepts 19 in 20 or more. Nothing is rounded: a uniform real
is compared by its first bits, and by more of them only where these leave the answer open.

* c: the first 64 bits lie between two thresholds of the law, known to the last bit, or on one:
  a chance of 2⁻⁵⁵ a number, decided with whole numbers (``enclosed``).
* The coin: accepted at once if even its largest value is below 1 − x ≤ exp(−x); else it is compared
  with 20 terms of Taylor's series, within 2⁻⁴⁵ of exp(−x) for x ≤ 1.25 (rounding 60 · 2⁻⁵³ e^x,
  remainder x²¹/21!, and 2⁻⁵¹ of x itself); where they are closer than 2⁻⁴⁴, with whole numbers.

So the law is the discrete Gaussian's, with a total variation distance of 0, given uniform bits. How
long a draw takes hangs on what is drawn: whoever can time it to microseconds is not covered.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from accountant.errors import check
from dpsgd_torch.secure.enclosed import accepts, located, thresholds
from dpsgd_torch.secure.generator import AesCounter

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

LARGEST = 2.0**44  # cells of deviation: beyond, too few bits are left for the coin

_AT_ONCE = 1 << 15  # candidates, so that they stay in the cache
_SLACK = 2.0**-49  # of 1 − x
_OPEN = 2.0**-44  # of the series
_MOST = 1.25  # which the series is for; x is below 0.6 but for a chance of 2^-64
_TERMS = 20


def discrete_gaussian(bits: AesCounter, deviation: float, count: int) -> Integers:
    """(count,) independent draws of deviation parameter σ = ``deviation``.

    >>> from dpsgd_torch.secure.generator import secure_generator, secure_bits
    >>> discrete_gaussian(secure_bits(secure_generator(bytes(32))), 3.0, 8)
    array([ 2,  2, -3,  2, -1, -1,  2,  2])
    """
    law, out, filled = _Law.of(deviation), np.empty(count, np.int64), 0
    while filled < count:
        wanted = count - filled
        drawn = law.some(bits, min(_AT_ONCE, wanted + wanted // 16 + 8))[:wanted]
        out[filled : filled + len(drawn)] = drawn
        filled += len(drawn)
    return out


class _Law:
    """The proposal for one σ, and the decisions on a block of words."""

    def __init__(self, deviation: float) -> None:
        check(
            0 < deviation <= LARGEST,
            "deviation",
            deviation,
            f"must be above 0, and at most {LARGEST:g} cells",
            "take a coarser grid, or less noise",
        )
        self.width = max(0, math.floor(math.log2(deviation / 16)) if deviation > 16 else 0)
        self.twice = 2 * Fraction(deviation) ** 2  # 2σ²
        self.rate = Fraction(4**self.width) / self.twice
        self.step = float(self.rate)
        self.coin = min(32, 63 - self.width)  # bits of it in the second word
        self.at = np.array(thresholds(self.rate, 64), np.uint64)
        starts = np.arange(1 << 12, dtype=np.uint64) << np.uint64(52)
        self.guide = np.searchsorted(self.at, starts).astype(np.int64)

    @staticmethod
    @lru_cache(maxsize=64)
    def of(deviation: float) -> _Law:
        return _Law(deviation)

    def some(self, bits: AesCounter, count: int) -> Integers:
        """Those of ``count`` candidates that are accepted, in their order."""
        coarse, fine = bits.words(2 * count).reshape(2, count)
        block = self._blocks(bits, coarse)
        within = ((fine >> np.uint64(63 - self.width)) & np.uint64((1 << self.width) - 1)).astype(
            np.int64
        )
        coin = (fine & np.uint64((1 << self.coin) - 1)).astype(np.int64)
        part = within * 2.0**-self.width
        x = (part * (2 * block + part) * self.step).astype(np.float64)  # within 2^-51
        taken = (coin + 1) * 2.0**-self.coin <= 1 - x - _SLACK
        for i, drawn, known in self._unsure(bits, np.flatnonzero(~taken), taken, coin, x):
            m = int(block[i]), int(within[i])
            exact = Fraction(m[1] * (2 * (m[0] << self.width) + m[1])) / self.twice
            taken[i] = accepts(exact, drawn, known, lambda: int(bits.words(1)[0]))
        size = (block << self.width) + within
        minus = (fine >> np.uint64(63)).astype(bool)
        taken &= ~(minus & (size == 0))
        return np.where(minus, -size, size)[taken]

    def _blocks(self, bits: AesCounter, words: NDArray[np.uint64]) -> Integers:
        block: Integers = self.guide[(words >> np.uint64(52)).astype(np.int64)]
        block += self.at[block] < words
        far = np.flatnonzero(self.at[block] < words)
        block[far] = np.searchsorted(self.at, words[far])
        for i in np.flatnonzero(self.at[block] == words):
            block[i] = located(self.rate, int(words[i]), 64, lambda: int(bits.words(1)[0]))
        return block

    def _unsure(
        self,
        bits: AesCounter,
        left: Integers,
        taken: NDArray[np.bool_],
        coin: Integers,
        x: Floats,
    ) -> list[tuple[int, int, int]]:
        """Decide by 31 bits more and the series; what that leaves open, with the bits it has."""
        known = self.coin + 31
        more = (bits.words(len(left)) >> np.uint64(33)).astype(np.int64)
        drawn = (coin[left] << 31) | more
        gap = _series(x[left]) - drawn * 2.0**-known
        taken[left] = gap > 0
        still = (np.abs(gap) <= _OPEN) | (x[left] > _MOST)
        return [(int(left[i]), int(drawn[i]), known) for i in np.flatnonzero(still)]


def _series(x: Floats) -> Floats:
    """exp(−x) by Taylor's series, x ≤ 1.25, in Horner's form."""
    total = np.ones_like(x)
    for k in range(_TERMS, 0, -1):
        total *= -x
        total /= k
        total += 1
    return total
