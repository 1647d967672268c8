"""Random allocation: each record in k of t releases, priced between certified bounds."""

import itertools
import json
import math

import mpmath
import numpy as np
import pytest

from accountant import (
    Gaussian,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RandomAllocation,
    RdpAccountant,
    Relation,
    UnsupportedEvent,
    event_from_json,
    for_group,
    renyi_divergence,
)
from accountant.dominating_pairs import allocation
from accountant.dominating_pairs.allocation import allocation_laws
from accountant.statement import describe_event


def balls(steps, noise, selected=1):
    return RandomAllocation(steps=steps, selected=selected, event=Gaussian(noise_multiplier=noise))


@pytest.fixture
def coarse(monkeypatch):
    """A third of the points: wider intervals, in a ninth of the time."""
    monkeypatch.setattr(allocation, "POINTS", 400)
    allocation_laws.cache_clear()
    yield
    allocation_laws.cache_clear()


def priced(event, count=1, delta=1e-5):
    return PldAccountant().compose(event, count).epsilon(delta)


def of_two(sigma, epsilon):
    """(removed, added) δ of one of two releases, by one integral over a closed form."""
    mpmath.mp.dps = 30
    mu, a = mpmath.mpf(1) / sigma, mpmath.exp(epsilon)

    def call(k):  # E[(Y/2 − k)₊]
        if k <= 0:
            return mpmath.mpf(1) / 2 - k
        d = -mpmath.log(2 * k) / mu + mu / 2
        return mpmath.ncdf(d) / 2 - k * mpmath.ncdf(d - mu)

    def ratio(z):
        return mpmath.exp(mu * z - mu * mu / 2) / 2

    def over(level):
        kink = (mpmath.log(2 * level) + mu * mu / 2) / mu
        points = sorted([-14, -2, 0, 2, 14, min(max(kink, -14), 14)])
        return mpmath.quad(lambda z: mpmath.npdf(z) * call(level - ratio(z)), points)

    # (1 − a S)₊ = a (S − 1/a)₊ + 1 − a S, whose mean is 1 − a
    return over(a), a * over(1 / a) + 1 - a


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.8, 1.0), (1.5, 0.3), (3.0, 0.05), (1.0, 3.0)])
def test_one_of_two_releases_holds_what_an_integral_of_thirty_digits_gives(sigma, epsilon):
    above, below = allocation_laws(2, sigma, 1)
    for true, high, low in zip(
        of_two(sigma, epsilon), above.deltas(epsilon), below.deltas(epsilon), strict=True
    ):
        assert low * (1 - 1e-11) <= float(true) <= high * (1 + 1e-11) + above.lost
        assert high - low < 5e-3 * high


def test_one_of_one_release_is_the_release():
    told = PldAccountant().compose(Gaussian(noise_multiplier=1.3), 3).epsilon(1e-6)
    assert priced(balls(1, 1.3), 3, 1e-6) == told
    assert priced(balls(5, 2.0, selected=5), 1) == priced(balls(1, 2.0), 5)


def test_the_interval_is_narrow_and_below_renyis_bound():
    bounds = priced(balls(240, 1.3), 15)
    assert 0.82 < bounds.lower < bounds.upper < 0.832
    assert bounds.upper < 1.005 * bounds.lower
    rdp = RdpAccountant().compose(balls(240, 1.3), 15).epsilon(1e-5)
    assert bounds.upper < rdp.upper < 1.2 * bounds.upper


@pytest.mark.usefixtures("coarse")
def test_it_costs_less_than_poisson_at_small_delta_and_no_less_noise_costs_no_less():
    poisson = PoissonSampled(sampling_rate=1 / 20, event=Gaussian(noise_multiplier=1.5))
    assert priced(balls(20, 1.5)).upper < PldAccountant().compose(poisson, 20).epsilon(1e-5).lower
    noises = [priced(balls(20, noise)) for noise in (1.0, 1.5)]
    lengths = [priced(balls(steps, 1.5)) for steps in (5, 20)]
    epochs = [priced(balls(20, 1.5), count) for count in (2, 1)]
    for falling in (noises, lengths, epochs):
        assert all(a.lower > b.upper for a, b in itertools.pairwise(falling))


@pytest.mark.usefixtures("coarse")
def test_a_delta_asked_back_is_the_one_that_was_given():
    accountant = PldAccountant().compose(balls(20, 1.5), 2)
    for delta in (1e-3, 1e-7, 1e-12):
        bounds = accountant.epsilon(delta)
        back = accountant.delta(bounds.upper)
        assert back.lower <= delta
        assert back.upper == pytest.approx(delta, rel=1e-6)


def test_moments_are_those_of_the_sum_and_the_other_direction_is_no_less():
    """Two independent ways: the generating function, and the law that is gathered."""
    below = allocation_laws(12, 1.2, 1)[1]
    for order in (2.0, 3.0, 7.0):
        told = float(renyi_divergence(balls(12, 1.2), [order])[0])
        removed = math.log(below.mass @ below.ratio**order) / (order - 1)
        added = math.log(below.mass @ below.ratio ** (1 - order)) / (order - 1)
        assert max(removed, added) <= told <= 1.01 * max(removed, added) + 1e-9


def test_the_second_moment_is_exact():
    sigma, t = 1.7, 9
    exact = math.log1p(math.expm1(1 / sigma**2) / t)
    assert renyi_divergence(balls(t, sigma), [2.0])[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.usefixtures("coarse")
def test_k_of_t_lies_between_their_sum_and_k_allocations():
    bounds = priced(balls(30, 2.0, selected=3))
    assert bounds.upper == priced(balls(10, 2.0), 3).upper
    of_sum = PldAccountant().compose(Gaussian(noise_multiplier=2.0 * math.sqrt(30) / 3))
    assert bounds.lower == pytest.approx(of_sum.epsilon(1e-5).lower, rel=1e-9)
    assert 0 < bounds.lower < bounds.upper


@pytest.mark.usefixtures("coarse")
def test_other_releases_compose_with_it():
    other = Laplace(noise_multiplier=20.0)
    both = PldAccountant().compose(balls(20, 1.5), 2).compose(other, 2).epsilon(1e-5)
    alone = priced(balls(20, 1.5), 2)
    assert alone.upper < both.lower <= both.upper < alone.upper + 0.1 + 1e-6
    with_gaussian = PldAccountant().compose(balls(20, 1.5)).compose(Gaussian(noise_multiplier=5.0))
    assert priced(balls(20, 1.5)).upper < with_gaussian.epsilon(1e-5).upper < math.inf


def test_a_wrong_law_of_a_ratio_is_seen(monkeypatch):
    """Planted: noise of two thirds, in the law that is spread and gathered."""
    true = of_two(1.5, 0.3)[0]
    honest = allocation._lognormal
    monkeypatch.setattr(allocation, "_lognormal", lambda mu, **how: honest(mu * 1.5, **how))
    allocation_laws.cache_clear()
    above, below = allocation_laws(2, 1.5, 1)
    allocation_laws.cache_clear()
    assert not below.deltas(0.3)[0] <= float(true) <= above.deltas(0.3)[0]


def test_little_noise_and_none_have_an_honest_answer():
    assert priced(balls(10, 0.02)).upper < math.inf
    assert priced(balls(10, 0.0)).upper == math.inf
    assert priced(balls(10, math.inf)).upper == 0.0


def test_it_is_written_told_and_refused_by_name():
    event = balls(30, 2.0, selected=3)
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event
    assert "each of 30 batches (each record is in exactly 3" in describe_event(event)
    with pytest.raises(UnsupportedEvent, match="no analysis of groups"):
        for_group(event, 2)
    replaced = Gaussian(noise_multiplier=1.0, relation=Relation.REPLACE_ONE)
    with pytest.raises(UnsupportedEvent, match="random allocation is analysed for add_or_remove"):
        RandomAllocation(steps=3, event=replaced)
    with pytest.raises(ValueError, match="selected = 4: must lie between 1 and 3"):
        balls(3, 1.0, selected=4)


@pytest.mark.usefixtures("coarse")
def test_masses_add_up_and_the_mean_ratio_is_one():
    for law in allocation_laws(50, 1.0, 2):
        assert law.mass.sum() == pytest.approx(1, abs=1e-9)
        assert law.mass @ law.ratio == pytest.approx(1, abs=1e-9)
        assert np.all(np.diff(law.ratio) > 0)
