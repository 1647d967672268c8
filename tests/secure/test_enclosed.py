"""Whole numbers decide what floats leave open, and every short word is tried."""

from fractions import Fraction
from itertools import islice

import mpmath
import numpy as np
import pytest

from dpsgd_torch.secure.enclosed import accepts, exp_minus, located, shares, thresholds

RATES = [Fraction(1, 2), Fraction(1, 50), Fraction(1, 128), Fraction(50, 9)]


def low():
    return 0


def high():
    return 2**64 - 1


@pytest.mark.parametrize("bits", [8, 64, 192])
def test_exp_lies_within_its_enclosure(bits):
    rng = np.random.default_rng(3)
    with mpmath.workprec(500):
        for _ in range(100):
            x = Fraction(int(rng.integers(1, 10**9)), int(rng.integers(1, 10**8)))
            true = mpmath.exp(-mpmath.mpf(x.numerator) / x.denominator) * 2**bits
            least, most = exp_minus(x, bits)
            assert least <= true <= most <= least + 2
    assert exp_minus(Fraction(0), bits)[1] == 2**bits


@pytest.mark.parametrize("x", [Fraction(1, 7), Fraction(1, 1000), Fraction(5, 4)])
def test_of_all_short_coins_just_one_needs_more_bits(x):
    sure = {True: 0, False: 0, None: 0}
    for drawn in range(256):
        ends = {accepts(x, drawn, 8, low), accepts(x, drawn, 8, high)}
        sure[ends.pop() if len(ends) == 1 else None] += 1
    true = 256 * float(mpmath.exp(-mpmath.mpf(x.numerator) / x.denominator))
    assert sure == {True: int(true), False: 255 - int(true), None: 1}


@pytest.mark.parametrize("rate", RATES)
def test_of_all_short_words_those_between_thresholds_are_decided_and_the_rest_are_on_one(rate):
    at = thresholds(rate, 8)
    for word in range(255):  # past 255 there is always more
        first, last = located(rate, word, 8, low), located(rate, word, 8, high)
        if word in at:
            assert first < last
        else:
            assert first == last == int(np.searchsorted(at, word))
    with mpmath.workprec(300):
        weights = [mpmath.exp(-mpmath.mpf(rate.numerator) / rate.denominator * c * c)
                   for c in range(800)]  # fmt: skip
        total, so_far = mpmath.fsum(weights), mpmath.mpf(0)
        for threshold, weight in zip(at, weights, strict=False):
            so_far += weight
            assert threshold == min(255, int(mpmath.floor(256 * so_far / total)))


def test_a_wrong_share_is_seen():
    wrong = thresholds(Fraction(1, 50) * Fraction(9, 4), 64)  # of σ × ⅔
    right = list(islice(shares(Fraction(1, 50), 64), 3))
    assert all(not least <= t <= most for t, (least, most) in zip(wrong, right, strict=False))
