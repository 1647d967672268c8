"""Fixed point against exact rational arithmetic and the functions it stands for."""

import math
from fractions import Fraction

import numpy as np
import pytest

from dpsgd_torch.export.fixed_point import (
    divide,
    exp_of_negative,
    high_product,
    logistic,
    multiplier,
    reciprocal_of_one_plus,
    requantize,
    tanh,
)

RNG = np.random.default_rng(0)
WIDE = RNG.integers(-(2**31), 2**31, size=3000)
EDGES = np.array([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1])


def away_from_zero(x):
    return math.floor(abs(x) + Fraction(1, 2)) * (1 if x >= 0 else -1)


def test_a_quotient_is_rounded_to_nearest_and_ties_away_from_zero():
    for exponent in (0, 1, 7, 30):
        found = divide(np.concatenate([WIDE, EDGES]), exponent)
        wanted = [away_from_zero(Fraction(int(x), 2**exponent)) for x in [*WIDE, *EDGES]]
        assert found.tolist() == wanted


def test_a_product_is_rounded_to_nearest():
    a, b = WIDE[:1500], WIDE[1500:]
    for x, y, found in zip(a, b, high_product(a, b), strict=True):
        assert abs(found - Fraction(int(x) * int(y), 2**31)) <= Fraction(1, 2)


def test_the_one_product_that_overflows_saturates():
    least = np.array([-(2**31)])
    assert high_product(least, -(2**31)).tolist() == [2**31 - 1]


@pytest.mark.parametrize("real", [1e-12, 3e-9, 0.3, 0.5, 0.999999999999, 1.0, 1.7, 1e6])
def test_a_multiplier_stands_for_the_real_to_nine_digits(real):
    m, shift = multiplier(real)
    if m:
        assert 2**30 <= m < 2**31
        assert m * 2.0 ** (shift - 31) == pytest.approx(real, rel=2**-30)
    else:
        assert real < 2**-31


def test_requantizing_is_within_a_unit_of_the_real_product():
    for real in (1e-6, 0.003, 0.7):
        m, shift = multiplier(real)
        x = RNG.integers(-(2**24), 2**24, size=500)
        assert np.abs(requantize(x, m, shift) - x * real).max() <= 1


@pytest.mark.parametrize(
    ("fixed", "real", "low", "bits"),
    [
        (lambda a: exp_of_negative(a, 5), np.exp, -31.9, 5),
        (lambda a: exp_of_negative(a, 4), np.exp, -15.9, 4),
        (logistic, lambda x: 1 / (1 + np.exp(-x)), -15.9, 4),
        (tanh, np.tanh, -15.9, 4),
    ],
)
def test_functions_are_good_to_seven_digits(fixed, real, low, bits):
    high = 0.0 if low == -31.9 or (fixed is not logistic and fixed is not tanh) else -low
    x = np.linspace(low, high, 4001)
    raw = np.round(x * 2 ** (31 - bits)).astype(np.int64)
    found = fixed(raw) / 2**31
    assert np.abs(found - real(raw / 2 ** (31 - bits))).max() < 2e-7


def test_a_reciprocal_is_good_to_seven_digits():
    a = np.linspace(0, 1, 1001)
    raw = np.minimum(np.round(a * 2**31), 2**31 - 1).astype(np.int64)
    assert np.abs(reciprocal_of_one_plus(raw) / 2**31 - 1 / (1 + a)).max() < 2e-7
