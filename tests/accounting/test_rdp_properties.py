"""What must hold of the Rényi curve everywhere, not only where somebody computed it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import rdp_poisson_sampled_gaussian

CLOSE = 1 + 1e-12  # the curve is exact to 2.5e-13

rates = st.one_of(st.floats(1e-12, 1.0), st.floats(-12, 0).map(lambda e: 10.0**e), st.just(0.0))
noises = st.one_of(st.floats(0.1, 20.0), st.floats(-1, 6).map(lambda e: 10.0**e))
orders = st.one_of(st.floats(1.01, 64.0), st.floats(-4, 3).map(lambda e: 1 + 10.0**e))
everywhere = settings(max_examples=150)


def cost(q, sigma, order):
    return float(rdp_poisson_sampled_gaussian(q, sigma, order))


@everywhere
@given(rates, noises, st.lists(orders, min_size=1, max_size=12))
def test_a_cost_is_a_number_and_never_negative(q, sigma, several):
    curve = rdp_poisson_sampled_gaussian(q, sigma, several)
    assert np.all(np.isfinite(curve))
    assert np.all(curve >= 0)


@everywhere
@given(rates, noises, noises, orders)
def test_more_noise_never_costs_more(q, one, other, order):
    less, more = sorted((one, other))
    assert cost(q, more, order) <= cost(q, less, order) * CLOSE


@everywhere
@given(rates, rates, noises, orders)
def test_a_larger_sampling_rate_never_costs_less(one, other, sigma, order):
    rarer, oftener = sorted((one, other))
    assert cost(rarer, sigma, order) <= cost(oftener, sigma, order) * CLOSE


@everywhere
@given(rates, noises, orders, orders)
def test_a_higher_order_never_costs_less(q, sigma, one, other):
    lower, higher = sorted((one, other))
    assert cost(q, sigma, lower) <= cost(q, sigma, higher) * CLOSE


@everywhere
@given(rates, noises, orders)
def test_sampling_never_costs_more_than_taking_everybody(q, sigma, order):
    assert cost(q, sigma, order) <= cost(1.0, sigma, order) * CLOSE


@everywhere
@given(rates, noises, st.integers(2, 200))
def test_a_small_cost_is_at_least_its_leading_term(q, sigma, order):
    """At a whole order A ≥ 1 + C(α, 2) q² (e^{1/σ²} − 1), term by term of the binomial sum."""
    leading = order * (order - 1) / 2 * q**2 * np.expm1(min(1 / sigma**2, 700.0))
    bound = np.log1p(leading) / (order - 1)
    assert cost(q, sigma, order) >= bound / CLOSE
