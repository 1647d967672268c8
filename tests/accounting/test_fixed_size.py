"""The bound for a sample of fixed size: as published, never above the unsampled, and its edges."""

import itertools
import json
import math
import time
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accountant import InvalidValue, rdp_gaussian
from accountant.rdp.fixed_size import published_bound, rdp_fixed_size_gaussian

GOLDEN = Path(__file__).parents[1] / "golden" / "mechanisms_exact.jsonl"
LINES = map(json.loads, GOLDEN.read_text().splitlines())
ROWS = [row for row in LINES if row["kind"] == "rdp_wor_gaussian_bound"]
ORDERS = [1.001, 1.5, 2.0, 63.0, 700.5]
CLOSE = 1 + 1e-12


def test_the_published_bound_meets_every_golden_row_from_above():
    assert len(ROWS) == 72
    for row in ROWS:
        value = float(published_bound(row["q"], row["sigma"], np.array([float(row["alpha"])]))[0])
        assert 0 <= float(Fraction(value) / Fraction(row["value"]) - 1) <= 1e-12, row


def test_the_unsampled_divergence_is_returned_where_it_is_less():
    replaced = [
        (row["q"], row["sigma"], row["alpha"])
        for row in ROWS
        if float(rdp_gaussian(row["sigma"], row["alpha"])) < float(row["value"]) / CLOSE
    ]
    assert replaced == [(0.5, 5.0, 3), (0.5, 5.0, 1.5)]
    for q, sigma, alpha in replaced:
        assert rdp_fixed_size_gaussian(q, sigma, alpha) == rdp_gaussian(sigma, alpha)


def by_forward_differences(q, sigma, order):
    """The sum of the paper word for word, at so many digits that the differences survive."""
    with mpmath.workdps(120 + 2 * order):
        q, sigma = mpmath.mpf(q), mpmath.mpf(sigma)
        exponentials = [mpmath.exp(i * (i - 1) / (2 * sigma**2)) for i in range(order + 3)]
        differences, row = [], exponentials
        while row:
            differences.append(row[0])
            row = [after - before for before, after in itertools.pairwise(row)]
        total = mpmath.mpf(1)
        for j in range(2, order + 1):
            root = mpmath.sqrt(differences[j // 2 * 2] * differences[(j + 1) // 2 * 2])
            total += mpmath.binomial(order, j) * q**j * min(4 * root, 2 * exponentials[j])
        return mpmath.log(total) / (order - 1)


@pytest.mark.parametrize(
    ("q", "sigma", "order"),
    [
        (1e-8, 0.9, 2),
        (1e-9, 300.0, 31),
        (0.004, 1.3, 33),
        (0.02, 0.15, 64),
        (0.3, 40.0, 101),
        (1e-4, 7.0, 180),
        (0.01, 90.0, 255),
        (0.001, 25.0, 256),
    ],
)
def test_the_published_bound_is_the_sum_over_forward_differences(q, sigma, order):
    truth = by_forward_differences(q, sigma, order)
    value = published_bound(q, sigma, np.array([float(order)]))[0]
    assert 0 <= mpmath.mpf(float(value)) / truth - 1 <= 1e-12


def test_between_whole_orders_the_cost_times_the_order_less_one_is_a_chord():
    low, high, between = rdp_fixed_size_gaussian(0.01, 2.0, [7.0, 8.0, 7.3]) * [6.0, 7.0, 6.3]
    assert between == pytest.approx(0.7 * low + 0.3 * high, rel=1e-14)
    below_two = rdp_fixed_size_gaussian(0.01, 2.0, [1.0001, 1.5, 2.0])
    assert below_two == pytest.approx([below_two[2]] * 3, rel=1e-12)


def test_all_orders_at_once_cost_what_they_cost_alone():
    orders = np.array([[63.0, 1.5, 8.0], [1.5, 511.5, 2.0]])
    curve = rdp_fixed_size_gaussian(0.01, 3.0, orders)
    assert curve.shape == orders.shape
    for order, value in zip(orders.flat, curve.flat, strict=True):
        assert value == pytest.approx(float(rdp_fixed_size_gaussian(0.01, 3.0, order)), rel=1e-13)


def test_five_hundred_orders_take_no_time_to_speak_of():
    start = time.process_time()
    curve = rdp_fixed_size_gaussian(0.01, 20.0, np.arange(2.0, 513.0))
    assert time.process_time() - start < 1
    assert np.all(np.diff(curve) > 0)


def test_the_highest_orders_lose_the_gain_of_sampling_but_stay_finite():
    curve = rdp_fixed_size_gaussian(1e-3, 400.0, [1e3, 1e4, 1.3e5, 1.4e5, 1e9, 1e300])
    assert np.all(np.isfinite(curve))
    assert np.all(np.diff(curve) > 0)
    assert curve[0] < 1e-2 * rdp_gaussian(400.0, 1e3)
    assert curve[3:].tolist() == rdp_gaussian(400.0, [1.4e5, 1e9, 1e300]).tolist()


def test_sampling_nobody_costs_nothing():
    assert rdp_fixed_size_gaussian(0.0, 1.0, ORDERS).tolist() == [0.0] * 5
    assert rdp_fixed_size_gaussian(0.0, 0.0, ORDERS).tolist() == [0.0] * 5


def test_sampling_everybody_is_the_plain_gaussian():
    assert rdp_fixed_size_gaussian(1.0, 2.0, ORDERS).tolist() == rdp_gaussian(2.0, ORDERS).tolist()


@pytest.mark.parametrize("q", [1e-300, 1e-8, 0.5, 1 - 1e-16, 1.0])
def test_no_noise_costs_infinitely_much_and_infinite_noise_nothing(q):
    assert np.isposinf(rdp_fixed_size_gaussian(q, 0.0, ORDERS)).all()
    assert np.isposinf(rdp_fixed_size_gaussian(q, 1e-170, ORDERS)).all()
    assert rdp_fixed_size_gaussian(q, math.inf, ORDERS).tolist() == [0.0] * 5
    assert np.all(rdp_fixed_size_gaussian(q, 1e170, ORDERS) < 1e-150)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_sampling_rate_outside_its_domain_is_refused(q):
    with pytest.raises(InvalidValue, match=rf"sampling_rate = {q}: must lie in \[0, 1\]"):
        rdp_fixed_size_gaussian(q, 1.0, 2.0)


def test_negative_noise_and_orders_of_one_are_refused():
    with pytest.raises(InvalidValue, match=r"noise_multiplier = -1\.0: must be ≥ 0"):
        rdp_fixed_size_gaussian(0.1, -1.0, 2.0)
    with pytest.raises(InvalidValue, match=r"orders = .*: must be finite and above 1"):
        rdp_fixed_size_gaussian(0.1, 1.0, [2.0, 1.0])


rates = st.floats(-9, 0).map(lambda e: 10.0**e)
noises = st.floats(-1.5, 4).map(lambda e: 10.0**e)
orders = st.one_of(st.floats(1.001, 64.0), st.floats(-3, 3).map(lambda e: 1 + 10.0**e))
everywhere = settings(max_examples=60)


@everywhere
@given(rates, noises, orders, st.floats(1, 3))
def test_the_bound_moves_the_way_the_cost_does(q, sigma, order, factor):
    cost = float(rdp_fixed_size_gaussian(q, sigma, order))
    assert 0 <= cost <= float(rdp_gaussian(sigma, order))
    assert float(rdp_fixed_size_gaussian(q, sigma * factor, order)) <= cost * CLOSE
    assert float(rdp_fixed_size_gaussian(q / factor, sigma, order)) <= cost * CLOSE
    assert float(rdp_fixed_size_gaussian(q, sigma, 1 + (order - 1) * factor)) >= cost / CLOSE
