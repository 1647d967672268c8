"""From the Rényi curve to (ε, δ): figures computed at 50 digits, and what must always hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from accountant.rdp.conversion import classic, improved

everywhere = settings(max_examples=200)
orders = st.floats(1.001, 1e5)
costs = st.floats(0, 1e4)
deltas = st.floats(-15, -0.01).map(lambda e: 10.0**e)


def at(convert, order, rdp, delta):
    return float(convert(np.array([order]), np.array([rdp]), delta)[0])


@pytest.mark.parametrize(
    ("convert", "order", "rdp", "delta", "known"),
    [
        (classic, 1.01, 1e-6, 1e-2, 460.5170195988087),
        (classic, 1.01, 10.0, 1e-5, 1161.292546497022),
        (classic, 1.5, 1e-6, 1e-5, 23.02585192994046),
        (classic, 64.0, 1e-6, 1e-5, 0.1827458486503211),
        (improved, 1.1, 0.1, 1e-5, 111.8782575788606),
        (improved, 1.5, 10.0, 1e-5, 31.11630842505602),
        (improved, 17.0, 0.1, 1e-12, 1.589238363925586),
        (improved, 512.0, 0.1, 1e-5, 0.1083670803108321),
    ],
)
def test_a_conversion_gives_the_known_figure(convert, order, rdp, delta, known):
    assert at(convert, order, rdp, delta) == pytest.approx(known, rel=1e-13)


@everywhere
@given(orders, costs, deltas)
def test_improved_is_never_above_classic(order, rdp, delta):
    assert 0 <= at(improved, order, rdp, delta) <= at(classic, order, rdp, delta)


@everywhere
@given(orders, costs, deltas, deltas)
def test_a_smaller_delta_never_costs_less(order, rdp, one, other):
    smaller, larger = sorted((one, other))
    for convert in (classic, improved):
        assert at(convert, order, rdp, smaller) >= at(convert, order, rdp, larger)


@everywhere
@given(st.floats(0.2, 50.0), orders, st.floats(-2.0, 5.0))
def test_no_order_gives_less_than_the_gaussian_truly_costs(sigma, order, deviations):
    """At the exact δ(ε) of one Gaussian [Balle, Wang 2018, Theorem 8], every order must say ≥ ε."""
    epsilon = max(0.0, (0.5 / sigma + deviations) / sigma)
    above, below = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
    delta = norm.cdf(above) - math.exp(epsilon + norm.logcdf(below))
    for convert in (classic, improved):
        assert at(convert, order, order / 2 / sigma**2, delta) >= epsilon - 1e-6
