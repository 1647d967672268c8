"""Truncated Poisson samples: what truncation may change is added to δ, both ways."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from accountant import (
    Gaussian,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RdpAccountant,
    Relation,
    TruncatedPoissonSampled,
    UnsupportedEvent,
    event_from_json,
    for_group,
    renyi_divergence,
)
from accountant.statement import describe_event
from accountant.truncation import binomial_tail


def truncated(most, *, n=1000, rate=0.05, noise=1.2):
    return TruncatedPoissonSampled(
        sampling_rate=rate, dataset_size=n, most=most, event=Gaussian(noise_multiplier=noise)
    )


def tail(n, q, most):
    q = Fraction(q)
    return sum(math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(most + 1, n + 1))


@pytest.mark.parametrize(
    ("n", "q", "most"), [(3, 0.5, 2), (40, 0.1, 8), (300, 0.02, 20), (200, 0.3, 90), (9, 0.9, 8)]
)
def test_the_binomial_tail_is_never_below_and_hardly_above(n, q, most):
    true = tail(n, q, most)
    assert true <= Fraction(binomial_tail(n, q, most)) <= true * Fraction(1 + 3e-6)


def law_of(values, q, most, grid, noise):
    """The density of the noisy sum over a truncated sample, by every subset that may be kept."""
    density = np.zeros(grid.size)
    for size in range(len(values) + 1):
        for drawn in itertools.combinations(values, size):
            probability = q**size * (1 - q) ** (len(values) - size)
            kept = list(itertools.combinations(drawn, min(size, most)))
            for subset in kept:
                shape = np.exp(-(((grid - sum(subset)) / noise) ** 2) / 2)
                density += probability / len(kept) * shape / (noise * math.sqrt(2 * math.pi))
    return density


@pytest.mark.parametrize("others", [(1, 1, 1), (-1, -1, -1), (1, -1, 0), (-1, -1, 1)])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_neighbours_that_can_be_enumerated_lose_more_than_is_charged(others, most):
    q, noise, n = 0.15, 0.7, 4
    grid = np.linspace(-12, 12, 6_001)
    step = grid[1] - grid[0]
    with_it = law_of((*others, 1), q, most, grid, noise)
    without = law_of(others, q, most, grid, noise)
    event = truncated(most, n=n, rate=q, noise=noise)
    for epsilon in (0.1, 0.5, 1.0):
        charged = PldAccountant().compose(event).delta(epsilon)
        for one, other in ((with_it, without), (without, with_it)):
            lost = float(np.maximum(one - math.exp(epsilon) * other, 0).sum() * step)
            assert lost <= charged.upper + 1e-9


def test_leaving_out_what_truncation_adds_would_be_caught():
    """Planted: the whole sample's δ alone is below what these neighbours lose."""
    q, noise, most, epsilon = 0.6, 2.0, 1, 1.2
    grid = np.linspace(-20, 20, 8_001)
    with_it = law_of((-1, -1, -1, 1), q, most, grid, noise)
    without = law_of((-1, -1, -1), q, most, grid, noise)
    lost = np.maximum(with_it - math.exp(epsilon) * without, 0).sum() * (grid[1] - grid[0])
    whole = PoissonSampled(sampling_rate=q, event=Gaussian(noise_multiplier=noise))
    event = truncated(most, n=4, rate=q, noise=noise)
    assert PldAccountant().compose(whole).delta(epsilon).upper < lost
    assert PldAccountant().compose(event).delta(epsilon).upper >= lost


def test_without_truncation_it_is_the_whole_sample():
    event = truncated(1000)
    assert PldAccountant().compose(event, 50).epsilon(1e-5) == (
        PldAccountant().compose(event.untruncated, 50).epsilon(1e-5)
    )
    told = RdpAccountant().compose(event, 50).epsilon(1e-5)
    assert told == RdpAccountant().compose(event.untruncated, 50).epsilon(1e-5)


def test_the_interval_holds_the_whole_samples_and_widens_as_less_is_kept():
    whole = PldAccountant().compose(truncated(1000), 50).epsilon(1e-5)
    before = whole
    for most in (120, 98, 93):
        bounds = PldAccountant().compose(truncated(most), 50).epsilon(1e-5)
        assert bounds.lower <= before.lower
        assert bounds.upper >= before.upper
        rdp = RdpAccountant().compose(truncated(most), 50).epsilon(1e-5)
        assert bounds.upper < rdp.upper
        before = bounds
    assert before.upper > whole.upper
    assert PldAccountant().compose(truncated(55), 50).epsilon(1e-5).upper == math.inf
    assert RdpAccountant().compose(truncated(55), 50).epsilon(1e-5).upper == math.inf


def test_a_delta_asked_back_is_within_the_one_that_was_given():
    accountant = PldAccountant().compose(truncated(93), 50).compose(Laplace(noise_multiplier=30.0))
    bounds = accountant.epsilon(1e-5)
    back = accountant.delta(bounds.upper)
    assert back.lower < 1e-5
    assert back.upper <= 1e-5 * (1 + 1e-6)
    assert accountant.upper(1e-5) == pytest.approx(bounds.upper, rel=1e-3)


def test_a_group_pays_for_the_same_truncation():
    ((event, count),) = for_group(truncated(93), 3)
    assert (event.untruncated.group_size, count) == (3, 1)
    assert PldAccountant().compose(event).upper(1e-5) > PldAccountant().compose(
        truncated(93)
    ).upper(1e-5)


def test_it_is_written_told_and_refused_by_name():
    event = truncated(93)
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event
    assert "93 are kept at most" in describe_event(event)
    with pytest.raises(UnsupportedEvent, match="has no Rényi curve"):
        renyi_divergence(event, [2.0])
    replaced = Gaussian(noise_multiplier=1.0, relation=Relation.REPLACE_ONE)
    with pytest.raises(UnsupportedEvent, match="truncated Poisson sampling is analysed for add"):
        TruncatedPoissonSampled(sampling_rate=0.1, dataset_size=10, most=5, event=replaced)
