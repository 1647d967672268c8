"""The Rényi curve of one step, against values known to 25 digits and at its edges."""

import json
import math
import subprocess
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from accountant import InvalidValue, rdp_gaussian, rdp_poisson_sampled_gaussian

GOLDEN = Path(__file__).parents[1] / "golden" / "rdp_exact.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
ORDERS = [1.001, 1.5, 2.0, 63.0, 700.5]


def relative_error(value, truth):
    """(value − truth) / truth, of a double against 25 digits: no rounding of its own."""
    return float((Fraction(float(value)) - Fraction(truth)) / Fraction(truth))


def too_far(errors):
    return [error for error in errors if not -1e-15 <= error <= 1e-10]


def errors_one_order_at_a_time(noise_factor=1.0):
    return [
        relative_error(
            rdp_poisson_sampled_gaussian(row["q"], row["sigma"] * noise_factor, row["alpha"]),
            row["value"],
        )
        for row in ROWS
    ]


def test_every_golden_row_is_met_one_order_at_a_time():
    assert len(ROWS) == 1085
    assert too_far(errors_one_order_at_a_time()) == []


def test_every_golden_row_is_met_with_all_orders_at_once():
    curves = defaultdict(list)
    for row in ROWS:
        curves[row["q"], row["sigma"]].append(row)
    errors = []
    for (q, sigma), rows in curves.items():
        values = rdp_poisson_sampled_gaussian(q, sigma, [row["alpha"] for row in rows])
        errors += map(relative_error, values, [row["value"] for row in rows])
    assert too_far(errors) == []


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_the_golden_rows_would_catch_another_noise(factor):
    assert len(too_far(errors_one_order_at_a_time(factor))) == len(ROWS)


def test_orders_far_apart_do_not_disturb_each_other():
    q, sigma, low, high = 6.841745354159797e-05, 1.380039605981106, 1.0000382620721116, 9839.0
    alone = float(rdp_poisson_sampled_gaussian(q, sigma, low))
    together = float(rdp_poisson_sampled_gaussian(q, sigma, [low, high])[0])
    assert together == pytest.approx(alone, rel=1e-13, abs=0)


def test_the_order_and_shape_of_the_orders_do_not_matter():
    orders = np.array([[63.0, 1.5, 8.0], [1.5, 2.0, 256.0]])
    curve = rdp_poisson_sampled_gaussian(0.01, 1.0, orders)
    assert curve.shape == orders.shape
    for order, value in zip(orders.flat, curve.flat, strict=True):
        assert value == pytest.approx(float(rdp_poisson_sampled_gaussian(0.01, 1.0, order)), 1e-13)


def test_sampling_nobody_costs_nothing():
    assert rdp_poisson_sampled_gaussian(0.0, 1.0, ORDERS).tolist() == [0.0] * 5
    assert rdp_poisson_sampled_gaussian(0.0, 0.0, ORDERS).tolist() == [0.0] * 5


def test_sampling_everybody_is_the_plain_gaussian():
    curve = rdp_poisson_sampled_gaussian(1.0, 2.0, ORDERS)
    assert curve == pytest.approx([order / 8 for order in ORDERS], rel=1e-15)
    assert curve.tolist() == rdp_gaussian(2.0, ORDERS).tolist()


@pytest.mark.parametrize("q", [1e-8, 0.5, 1.0])
def test_no_noise_costs_infinitely_much(q):
    assert np.isposinf(rdp_poisson_sampled_gaussian(q, 0.0, ORDERS)).all()


@pytest.mark.parametrize("q", [0.0, 1e-8, 0.5, 1.0])
def test_infinite_noise_costs_nothing(q):
    assert rdp_poisson_sampled_gaussian(q, math.inf, ORDERS).tolist() == [0.0] * 5


@pytest.mark.parametrize(("q", "sigma"), [(1e-8, 1e200), (0.5, 1e170), (1e-100, 1e100)])
def test_a_cost_too_small_for_a_double_is_zero_or_tiny_not_nan(q, sigma):
    curve = rdp_poisson_sampled_gaussian(q, sigma, ORDERS)
    assert np.all((curve >= 0) & (curve < 1e-150)), curve


def test_a_rare_record_under_little_noise_is_never_nan():
    assert np.all(rdp_poisson_sampled_gaussian(1e-300, 0.05, ORDERS) >= 0)


def test_noise_too_small_to_divide_by_costs_infinitely_much_without_a_warning():
    assert np.isposinf(rdp_gaussian(1e-170, ORDERS)).all()


def test_tiny_noise_takes_little_memory():
    """At σ → 0 the divergence tends to α/(2σ²) + α log(q)/(α − 1)."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from accountant import rdp_poisson_sampled_gaussian
print(float(rdp_poisson_sampled_gaussian(0.01, 1e-5, 2.0)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    assert float(done.stdout) == pytest.approx(1e10 + 2 * math.log(0.01), rel=1e-12)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan, math.inf])
def test_a_sampling_rate_outside_its_domain_is_refused(q):
    with pytest.raises(InvalidValue, match=rf"sampling_rate = {q}: must lie in \[0, 1\]"):
        rdp_poisson_sampled_gaussian(q, 1.0, 2.0)


@pytest.mark.parametrize("sigma", [-1.0, -1e-300, -math.inf, math.nan])
def test_negative_noise_is_refused(sigma):
    with pytest.raises(InvalidValue, match=f"noise_multiplier = {sigma}: must be ≥ 0"):
        rdp_poisson_sampled_gaussian(0.1, sigma, 2.0)
    with pytest.raises(InvalidValue, match=f"noise_multiplier = {sigma}: must be ≥ 0"):
        rdp_gaussian(sigma, 2.0)


@pytest.mark.parametrize("order", [1.0, 0.5, 0.0, -2.0, math.nan, math.inf])
def test_an_order_outside_its_domain_is_refused(order):
    for orders in (order, [2.0, order]):
        with pytest.raises(InvalidValue, match=rf"orders = .*{order:g}.*: must be .* above 1"):
            rdp_poisson_sampled_gaussian(0.1, 1.0, orders)


def test_no_orders_at_all_are_refused():
    with pytest.raises(InvalidValue, match=r"orders = \[\]: must be finite and above 1"):
        rdp_poisson_sampled_gaussian(0.1, 1.0, [])


def test_a_refusal_is_also_a_value_error():
    with pytest.raises(ValueError, match="sampling_rate"):
        rdp_poisson_sampled_gaussian(2.0, 1.0, 2.0)
