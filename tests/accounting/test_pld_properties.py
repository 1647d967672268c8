"""What must hold of exact intervals everywhere: the worse run's lower end never contradicts.

An interval says nothing of where in it ε lies, so "costs no less" reads: the lower end of what
must cost less is at most the upper end of what must cost more.
"""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import Gaussian, PldAccountant, PoissonSampled, RdpAccountant
from accountant.gaussian import gaussian_epsilon

rates = st.one_of(st.floats(1e-3, 1.0), st.floats(-3, 0).map(lambda e: 10.0**e))
noises = st.floats(-0.2, 2).map(lambda e: 10.0**e)
counts = st.one_of(st.integers(1, 50), st.integers(50, 20_000))
deltas = st.floats(-12, -0.3).map(lambda e: 10.0**e)
few = settings(max_examples=12)


def step(rate, noise):
    return PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))


def composed(*parts):
    accountant = PldAccountant()
    accountant.compose_all(parts)
    return accountant


def epsilon(rate, noise, count, delta):
    return composed((step(rate, noise), count)).epsilon(delta)


@few
@given(rates, noises, counts, deltas)
def test_an_interval_is_an_interval(rate, noise, count, delta):
    bounds = epsilon(rate, noise, count, delta)
    assert 0 <= bounds.lower <= bounds.upper < math.inf


@few
@given(rates, noises, noises, counts, deltas)
def test_more_noise_never_costs_more(rate, one, other, count, delta):
    less, more = sorted((one, other))
    assert epsilon(rate, more, count, delta).lower <= epsilon(rate, less, count, delta).upper


@few
@given(rates, rates, noises, counts, deltas)
def test_a_larger_sampling_rate_never_costs_less(one, other, noise, count, delta):
    rarer, oftener = sorted((one, other))
    assert epsilon(rarer, noise, count, delta).lower <= epsilon(oftener, noise, count, delta).upper


@few
@given(rates, noises, counts, counts, deltas)
def test_more_steps_never_cost_less(rate, noise, one, other, delta):
    fewer, more = sorted((one, other))
    assert epsilon(rate, noise, fewer, delta).lower <= epsilon(rate, noise, more, delta).upper


@few
@given(rates, noises, counts, deltas, deltas)
def test_a_larger_delta_never_costs_more(rate, noise, count, one, other):
    stricter, laxer = sorted((one, other))
    assert epsilon(rate, noise, count, laxer).lower <= epsilon(rate, noise, count, stricter).upper


@few
@given(rates, noises, counts, deltas)
def test_sampling_never_costs_more_than_taking_everybody(rate, noise, count, delta):
    everybody, error = gaussian_epsilon(math.sqrt(count) / noise, delta)
    assert epsilon(rate, noise, count, delta).lower <= everybody + error


@few
@given(rates, noises, counts, deltas)
def test_renyi_accounting_never_goes_below(rate, noise, count, delta):
    by_renyi = RdpAccountant().compose(step(rate, noise), count).epsilon(delta)
    assert epsilon(rate, noise, count, delta).lower <= by_renyi.upper


@few
@given(rates, noises, counts, deltas)
def test_delta_at_either_end_is_on_the_right_side(rate, noise, count, delta):
    """The worse direction alone could attain δ, hence ε no higher than a record added can cost."""
    accountant = composed((step(rate, noise), count))
    bounds = accountant.epsilon(delta)
    if rate < 1 and bounds.upper < -0.3 * count * math.log1p(-rate):
        assert accountant.delta(bounds.upper).lower <= delta
        if bounds.lower > 0:
            assert accountant.delta(bounds.lower).upper >= delta


@few
@given(st.floats(0.01, 1.0), noises, counts, st.floats(0, 3), st.floats(0, 3))
def test_a_larger_epsilon_is_met_with_no_larger_delta(rate, noise, count, one, other):
    accountant = composed((step(rate, noise), count))
    less, more = sorted((one, other))
    if rate < 1 and more < -0.3 * count * math.log1p(-rate):
        assert accountant.delta(more).lower <= accountant.delta(less).upper


@few
@given(noises, counts, deltas)
def test_everybody_sampled_costs_what_the_gaussian_mechanism_does(noise, count, delta):
    bounds = epsilon(1.0, noise, count, delta)
    exact, error = gaussian_epsilon(math.sqrt(count) / noise, delta)
    assert bounds.lower <= exact + error + 1e-12 * exact
    assert exact - error - 1e-12 * exact <= bounds.upper
    assert bounds.upper - bounds.lower <= 1e-8 * bounds.upper + 1e-14


PARTS = [(step(0.01, 1.0), 300), (step(0.2, 9.0), 50), (Gaussian(noise_multiplier=9.0), 2)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_composition_does_not_matter(order):
    bounds = composed(*(PARTS[i] for i in order)).epsilon(1e-5)
    usual = composed(*PARTS).epsilon(1e-5)
    assert bounds.lower == pytest.approx(usual.lower, rel=1e-9)
    assert bounds.upper == pytest.approx(usual.upper, rel=1e-9)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_splitting_a_count_changes_nothing(counts):
    in_parts = composed(*((step(0.02, 1.0), count) for count in counts))
    at_once = composed((step(0.02, 1.0), sum(counts)))
    assert in_parts.epsilon(1e-5) == at_once.epsilon(1e-5)
    assert in_parts.events == at_once.events


@pytest.mark.parametrize("noise", [1.0, 30.0])
def test_gaussian_releases_add_up_in_variance_among_sampled_ones(noise):
    """2 releases at σ are one at σ/√2."""
    others = (step(0.01, 1.0), 100)
    two = composed(others, (Gaussian(noise_multiplier=noise), 2)).epsilon(1e-6)
    one = composed(others, (Gaussian(noise_multiplier=noise / math.sqrt(2)), 1)).epsilon(1e-6)
    assert one.lower == pytest.approx(two.lower, rel=1e-9)
    assert one.upper == pytest.approx(two.upper, rel=1e-9)


def test_a_step_that_changes_by_nothing_costs_the_same_told_apart():
    """1000 steps at one rate, and 500 beside 500 at the next double."""
    together = composed((step(0.01, 1.0), 1000)).epsilon(1e-5)
    apart = composed(
        (step(0.01, 1.0), 500), (step(math.nextafter(0.01, 1), 1.0), 500)
    ).epsilon(1e-5)  # fmt: skip
    assert max(together.lower, apart.lower) <= min(together.upper, apart.upper)
