"""The discrete Gaussian is drawn as its law says, whatever σ, and by whole numbers the same."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from accountant import InvalidValue
from dpsgd_torch.secure import discrete
from dpsgd_torch.secure.discrete import LARGEST, discrete_gaussian
from dpsgd_torch.secure.generator import secure_bits, secure_generator


def bits(number=0):
    return secure_bits(secure_generator(number.to_bytes(32, "big")))


def p_value(drawn, deviation):
    """Chi-square against the exact law; rare values are put together."""
    reach = math.ceil(9 * deviation) + 3
    values = np.arange(-reach, reach + 1)
    expected = np.exp(-(values**2) / (2 * deviation**2))
    expected *= len(drawn) / expected.sum()
    counts = np.bincount(drawn + reach, minlength=len(values))
    common = expected >= 10
    pairs = [np.append(each[common], each[~common].sum()) for each in (counts, expected)]
    if pairs[1][-1] < 1:
        assert pairs[0][-1] <= 12
        pairs = [each[:-1] for each in pairs]
        pairs[1] *= pairs[0].sum() / pairs[1].sum()
    return scipy.stats.chisquare(*pairs).pvalue


@pytest.mark.parametrize("deviation", [0.4, 1.0, 4.0, 17.3, 40.0, 100.0])
def test_its_law_is_accepted_and_two_thirds_and_three_halves_are_not(deviation):
    drawn = discrete_gaussian(bits(), deviation, 300_000)
    assert p_value(drawn, deviation) > 1e-4
    assert p_value(drawn, deviation * 1.5) < 1e-12
    assert p_value(drawn, deviation / 1.5) < 1e-12


def lower_halves(deviation, n):
    """How many standard deviations too many magnitudes lie in the lower halves of their blocks."""
    width = 2.0 ** math.floor(math.log2(deviation / 16))
    edges = np.arange(400) * width
    within = scipy.stats.norm.cdf(edges + width / 2, scale=deviation)
    share = 2 * (within - scipy.stats.norm.cdf(edges, scale=deviation)).sum()
    lower = np.abs(discrete_gaussian(bits(), deviation, n)) % width < width / 2
    return (lower.mean() - share) / math.sqrt(share * (1 - share) / n)


def test_without_its_coin_it_would_be_rejected(monkeypatch):
    assert abs(lower_halves(2.0**30, 500_000)) < 4.5
    monkeypatch.setattr(discrete, "_SLACK", -math.inf)  # accepts all
    assert lower_halves(2.0**30, 500_000) < -6


def test_minus_zero_is_refused():
    zeros = np.count_nonzero(discrete_gaussian(bits(), 1.0, 200_000) == 0)
    assert abs(zeros / 200_000 - 0.39894) < 0.006  # twice as many magnitudes would be 0 else


@pytest.mark.parametrize("deviation", [1.3 * 2**30, 2.0**44, 12345.6])
def test_moments_of_a_large_one(deviation):
    n = 400_000
    drawn = discrete_gaussian(bits(), deviation, n) / deviation
    assert abs(drawn.mean()) < 5 / math.sqrt(n)
    assert abs(np.mean(drawn**2) - 1) < 5 * math.sqrt(2 / n)
    assert abs(np.mean(drawn**4) - 3) < 5 * math.sqrt(96 / n)
    assert scipy.stats.kstest(drawn, "norm").pvalue > 1e-4
    assert scipy.stats.kstest(drawn * 1.03, "norm").pvalue < 1e-6


def test_last_bits_of_a_large_one_are_uniform():
    drawn = discrete_gaussian(bits(), 1.3 * 2**30, 200_000)
    assert scipy.stats.chisquare(np.bincount(drawn % 256)).pvalue > 1e-4


@pytest.mark.parametrize("deviation", [700.0, 1.3 * 2**30])
def test_whole_numbers_decide_as_floats_do(deviation, monkeypatch):
    fast, decided = discrete_gaussian(bits(), deviation, 9000), []

    def accepts(x, drawn, known, more):
        decided.append(known)
        return honest(x, drawn, known, more)

    honest = discrete.accepts
    monkeypatch.setattr(discrete, "_OPEN", 2.0)  # the series decides nothing
    monkeypatch.setattr(discrete, "accepts", accepts)
    assert np.array_equal(discrete_gaussian(bits(), deviation, 9000), fast)
    assert len(decided) > 100
    monkeypatch.setattr(discrete, "accepts", lambda *_: True)
    assert not np.array_equal(discrete_gaussian(bits(), deviation, 9000), fast)


def test_whole_numbers_find_the_blocks_that_thresholds_do():
    law, words = discrete._Law.of(1.3 * 2**30), bits().words(30)
    found = [discrete.located(law.rate, int(word), 64, lambda: 0) for word in words]
    assert law._blocks(bits(), words).tolist() == found
    on_one = law.at[:1].repeat(3)  # as often below as above: more bits decide
    assert len({int(law._blocks(bits(n), on_one).sum()) for n in range(8)}) > 1


def canonne_kamath_steinke(rng, deviation):
    """Algorithms 1 to 3 of the paper, in fractions."""

    def below(p):
        return rng.randrange(p.denominator) < p.numerator

    def coin(gamma):
        if gamma > 1:
            return all(coin(Fraction(1)) for _ in range(math.floor(gamma))) and coin(
                gamma - math.floor(gamma)
            )
        k = 1
        while below(gamma / k):
            k += 1
        return k % 2 == 1

    def laplace(t):
        while True:
            u = rng.randrange(t)
            if not coin(Fraction(u, t)):
                continue
            v = 0
            while coin(Fraction(1)):
                v += 1
            sign, size = rng.randrange(2), u + t * v
            if not (sign and not size):
                return -size if sign else size

    t, square = math.floor(deviation) + 1, Fraction(deviation) ** 2
    while True:
        y = laplace(t)
        if coin((abs(y) - square / t) ** 2 / (2 * square)):
            return y


def test_it_agrees_with_the_paper_s_own_algorithm():
    rng = random.Random(5)
    theirs = np.array([canonne_kamath_steinke(rng, 2.5) for _ in range(3000)])
    ours = discrete_gaussian(bits(), 2.5, 3000)
    assert p_value(theirs, 2.5) > 1e-4
    table = [np.bincount(np.clip(each, -6, 6) + 6, minlength=13) for each in (ours, theirs)]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-4


def test_one_key_gives_one_answer_and_another_key_another():
    one, again, other = (discrete_gaussian(bits(n), 2.0**30, 100) for n in (1, 1, 2))
    assert np.array_equal(one, again)
    assert len(np.intersect1d(one, other)) == 0


def test_a_deviation_out_of_reach_is_refused():
    for deviation in (0.0, math.nan, 2 * LARGEST):
        with pytest.raises(InvalidValue, match="deviation"):
            discrete_gaussian(bits(), deviation, 1)
