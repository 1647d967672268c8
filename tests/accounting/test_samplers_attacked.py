"""Other samplers, attacked: exact integrals, rare tails, a search, and what a law costs to have."""

import math
import re

import numpy as np
import pytest
import scipy

from accountant import (
    Gaussian,
    RandomAllocation,
    RdpAccountant,
    TruncatedPoissonSampled,
    UnsupportedEvent,
)
from accountant.calibration import exact
from accountant.dominating_pairs import allocation
from accountant.dominating_pairs.allocation import allocation_laws
from accountant.selection import TruncatedNegativeBinomial, best_of_all, best_of_random
from accountant.truncation import binomial_tail


def of_three(sigma, epsilon):
    """(removed, added) δ of one of three releases: a closed form, summed over a fine grid of two.

    The trapezoid rule on the line has errors of exp(−(2π/h)²/2) for a Gaussian.
    """
    mu, a, h = 1 / sigma, math.exp(epsilon), 0.02
    z = np.arange(-9.0, 9.0, h)
    y, w = np.exp(mu * z - mu * mu / 2) / 3, h * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    others, weight = np.add.outer(y, y), np.multiply.outer(w, w)

    def parts(level):
        left = level - others
        some = np.where(left > 0, left, 1.0)
        return left, some, -np.log(3 * some) / mu + mu / 2

    left, some, d = parts(a)
    call = scipy.special.ndtr(d) / 3 - some * scipy.special.ndtr(d - mu)
    removed = (weight * np.where(left > 0, call, 1 / 3 - left)).sum()
    left, some, d = parts(1 / a)
    put = some * scipy.special.ndtr(mu - d) - scipy.special.ndtr(-d) / 3
    return removed, a * (weight * np.where(left > 0, put, 0.0)).sum()


@pytest.mark.parametrize(("sigma", "epsilon"), [(1.0, -0.5), (1.0, 1.5), (5.0, 0.1), (50.0, 0.01)])
def test_both_directions_of_one_of_three_hold_what_an_integral_over_a_grid_gives(sigma, epsilon):
    above, below = allocation_laws(3, sigma, 1)
    for true, high, low in zip(
        of_three(sigma, epsilon), above.deltas(epsilon), below.deltas(epsilon), strict=True
    ):
        assert low - 1e-13 <= true <= high + 1e-13
        assert high - low < 1e-2 * high


def test_the_directions_differ_and_an_interval_of_one_would_not_hold_the_other():
    above, below = allocation_laws(100, 0.5, 1)
    assert above.deltas(1.2)[1] < 0.01 * below.deltas(1.2)[0]


def test_a_slowly_falling_tail_is_rounded_up_too():
    n = 4 * 10**7
    for past in (3_000, 9_000):
        true = scipy.stats.binom.sf(n // 2 + past, n, 0.5)
        assert true <= binomial_tail(n, 0.5, n // 2 + past) <= true * 1.01


def test_a_search_over_truncated_samples_is_refused_since_no_curve_tells_what_they_cost():
    """Planted where it was: the curve of whole samples, and nothing for 20 trials' truncation."""
    event = TruncatedPoissonSampled(
        sampling_rate=0.05, dataset_size=1000, most=93, event=Gaussian(noise_multiplier=4.0)
    )
    told = RdpAccountant().compose(event, 100)
    assert told.epsilon(1e-5).upper < 1
    for asks in (
        told.rdp,
        lambda: told.rdp([2.0]),
        lambda: best_of_random([(event, 100)], TruncatedNegativeBinomial.with_mean(20.0), 1e-5),
        lambda: best_of_all([(event, 100)], 20, 1e-5, []),
    ):
        with pytest.raises(UnsupportedEvent, match=re.escape("has no Rényi curve")):
            asks()


def test_a_price_asks_for_each_law_of_a_round_once(monkeypatch):
    asked = []
    honest = allocation._one

    def told(*args, **how):
        asked.append(args)
        return honest(*args, **how)

    monkeypatch.setattr(allocation, "_one", told)
    monkeypatch.setattr(allocation, "POINTS", 200)
    allocation_laws.cache_clear()
    event = RandomAllocation(steps=12, event=Gaussian(noise_multiplier=1.5))
    exact().compose(event, 5).epsilon(1e-5)
    allocation_laws.cache_clear()
    assert len(asked) == 2  # the one that is spread and the one that is gathered
