"""Discrete Gaussian noise on vectors of integers: held between two continuous ones."""

import itertools
import math
import time

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from accountant import (
    DiscreteGaussian,
    FixedSizeSampled,
    Gaussian,
    PldAccountant,
    PoissonSampled,
    RdpAccountant,
    Relation,
    ShuffledEpoch,
    UnsupportedEvent,
    for_group,
    renyi_divergence,
)
from accountant.dominating_pairs.of_events import domination
from accountant.lattice import OFF, attained, continuous

REPLACED = Relation.REPLACE_ONE


def vector(noise, sensitivity, dimension=2, **fields):
    return DiscreteGaussian(
        noise_multiplier=noise, sensitivity=sensitivity, dimension=dimension, **fields
    )


def sampled(rate, event, group_size=1):
    return PoissonSampled(sampling_rate=rate, event=event, group_size=group_size)


def theta(square, offset=0):
    """Σ exp(−(z − offset)²/(2 square)) over the integers z."""
    reach = int(20 * mpmath.sqrt(square)) + 2
    return mpmath.fsum(
        mpmath.exp(-((z - offset) ** 2) / (2 * square)) for z in range(-reach, reach)
    )


def after_rounding(y, s_square, r_square):
    """P(y) where x ~ N(0, s²) is rounded at random: an integral whose trapezoids are exact."""
    step = mpf(1) / 16
    terms = []
    for i in range(-int(16 * 14 * mpmath.sqrt(s_square)), int(16 * 14 * mpmath.sqrt(s_square))):
        x = i * step
        drawn = mpmath.exp(-((y - x) ** 2) / (2 * r_square)) / theta(r_square, x - mpmath.nint(x))
        terms.append(mpmath.exp(-x * x / (2 * s_square)) * drawn)
    return step * mpmath.fsum(terms) / mpmath.sqrt(2 * mpmath.pi * s_square)


@pytest.mark.parametrize("r_square", ["0.3", "0.8", "1.8"])
def test_rounding_a_gaussian_at_random_gives_the_discrete_one_but_for_tau(r_square):
    with mpmath.workdps(30):
        r_square, square = mpf(r_square), mpf(6)
        eta = 2 * mpmath.exp(-2 * mpmath.pi**2 * r_square)
        eta += 3 * eta**4
        tau = mpmath.log((1 + eta) / (1 - eta))
        apart = []
        for y in (0, 1, 4):
            discrete = mpmath.exp(-(mpf(y) ** 2) / (2 * square)) / theta(square)
            apart.append(abs(mpmath.log(after_rounding(y, square - r_square, r_square) / discrete)))
        assert max(apart) <= tau
        assert max(apart) > tau**3  # it is no equality


@pytest.mark.parametrize("dimension", [2, 10**3, 10**9])
def test_what_is_left_off_is_below_what_is_charged_for_it(dimension):
    event = vector(2.0, 5.0, dimension)
    for costlier in (True, False):
        noise = mpf(continuous(event, costlier=costlier).noise_multiplier)
        shift = mpf(5.0 if costlier else attained(event))
        with mpmath.workdps(40):
            other = abs((noise * shift) ** 2 - 100)  # r² of the rounding, or of what is added
            square = other if costlier else 1 / (1 / mpf(100) + 1 / other)
            eta = 2 * mpmath.exp(-2 * mpmath.pi**2 * square) * (1 + mpf(10) ** -20)
            assert OFF / 100 < dimension * mpmath.log((1 + eta) / (1 - eta)) <= OFF


def hockey_stick(shift, sigma, q, epsilon):
    """δ(ε) of both directions, summed over the plane."""
    line = np.arange(-math.ceil(11 * sigma), math.ceil(11 * sigma) + max(shift) + 1.0)
    weights = np.exp(-0.5 * (line / sigma) ** 2)
    weights /= weights.sum()
    x, y = np.meshgrid(line, line)
    without = np.outer(weights, weights).ravel()
    a, b = shift
    ratio = np.exp((2 * (a * y + b * x) - a * a - b * b) / (2 * sigma**2)).ravel()
    with_record = without * (1 - q + q * ratio)
    removed = np.maximum(with_record - math.exp(epsilon) * without, 0).sum()
    added = np.maximum(without - math.exp(epsilon) * with_record, 0).sum()
    return max(removed, added)


@pytest.mark.parametrize("q", [1.0, 0.2])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.5])
def test_the_worst_shift_in_the_plane_is_held(q, epsilon):
    sigma, sensitivity = 6.5, 5.1
    shifts = [v for v in itertools.product(range(6), range(6)) if 0 < math.hypot(*v) <= sensitivity]
    exact = max(hockey_stick(v, sigma, q, epsilon) for v in shifts)
    bounds = PldAccountant().compose(sampled(q, vector(sigma / sensitivity, sensitivity))).delta(
        epsilon
    )  # fmt: skip
    assert bounds.lower <= exact <= bounds.upper
    assert bounds.upper < 2 * exact


@pytest.mark.parametrize(("q", "steps"), [(0.01, 1000), (0.2, 7), (1.0, 30)])
@pytest.mark.parametrize("shift", [4, 11, 40])
def test_along_an_axis_it_is_the_discrete_gaussian_of_one_dimension(q, steps, shift):
    line = sampled(q, DiscreteGaussian(noise_multiplier=1.2, sensitivity=shift))
    exact = PldAccountant().compose(line, steps).epsilon(1e-5, width=1e-7)
    bounds = PldAccountant().compose(sampled(q, vector(1.2, shift)), steps).epsilon(1e-5)
    assert bounds.lower <= exact.upper
    assert exact.lower <= bounds.upper
    assert bounds.upper - bounds.lower < 20 / shift**2 * exact.upper


@pytest.mark.parametrize(
    "wrap",
    [
        lambda event: event,
        lambda event: sampled(0.01, event),
        lambda event: sampled(0.01, event, group_size=3),
    ],
)
def test_on_a_fine_grid_it_costs_what_the_continuous_one_costs(wrap):
    discrete, plain = wrap(vector(1.3, 2.0**20, 26_010)), wrap(Gaussian(noise_multiplier=1.3))
    bounds = PldAccountant().compose(discrete, 500).epsilon(1e-5, width=1e-7)
    known = PldAccountant().compose(plain, 500).epsilon(1e-5, width=1e-7)
    assert bounds.narrow
    assert bounds.lower == pytest.approx(known.lower, rel=2e-7)
    assert bounds.upper == pytest.approx(known.upper, rel=2e-7)
    rdp = RdpAccountant().compose(discrete, 500).epsilon(1e-5).upper
    assert rdp >= bounds.lower
    assert rdp == pytest.approx(RdpAccountant().compose(plain, 500).epsilon(1e-5).upper, rel=1e-9)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda event: sampled(0.05, event),
        lambda event: FixedSizeSampled(dataset_size=100, batch_size=5, event=event),
        lambda event: ShuffledEpoch(event=event),
    ],
)
def test_a_replaced_record_is_held_under_every_sampler(wrap):
    discrete = wrap(vector(2.0, 801.0, 50, relation=REPLACED))
    plain = wrap(Gaussian(noise_multiplier=2.0, relation=REPLACED))
    bounds = PldAccountant().compose(discrete, 20).epsilon(1e-5)
    known = PldAccountant().compose(plain, 20).epsilon(1e-5)
    assert bounds.lower <= known.upper
    assert known.lower <= bounds.upper
    assert bounds.upper == pytest.approx(known.upper, rel=3e-4)


def test_the_interval_of_a_long_run_is_narrow_and_quick():
    step = sampled(250 / 60_000, vector(1.3, 1000.0, 26_010))
    times = []
    for _ in range(3):
        started = time.process_time()
        bounds = PldAccountant().compose(step, 3600).epsilon(1e-5)
        times.append(time.process_time() - started)
    assert bounds.narrow
    assert bounds.upper - bounds.lower <= 1e-4
    assert min(times) < 1  # 17 ms; of the processor, so that a busy machine changes little


@pytest.mark.parametrize("order", [2, 3, 8])
def test_at_whole_orders_the_sampled_moments_are_those_of_the_continuous_one(order):
    """E_Q[(P/Q)^k] = exp(k(k−1)‖v‖²/(2σ²)) exactly, for a shift by integers."""
    sigma, q, v = 6.0, 0.1, (3, 4)
    line = np.arange(-80.0, 81.0 + 5 * order)
    weights = np.exp(-0.5 * (line / sigma) ** 2)
    x, y = np.meshgrid(line, line)
    without = np.outer(weights, weights) / weights[line < 81].sum() ** 2
    ratio = 1 - q + q * np.exp((2 * (v[0] * y + v[1] * x) - 25) / (2 * sigma**2))
    exact = math.log((without * ratio**order).sum()) / (order - 1)
    bound = float(renyi_divergence(sampled(q, vector(sigma / 5, 5.0)), [order])[0])
    known = float(renyi_divergence(sampled(q, Gaussian(noise_multiplier=sigma / 5)), [order])[0])
    assert exact == pytest.approx(known, rel=1e-9)
    assert known <= bound < 1.5 * known


@pytest.mark.parametrize(
    ("event", "square"),
    [
        (vector(2.0, 10.5, 4), 110),
        (vector(2.0, 10.5, 3), 100),
        (vector(2.0, 11.0, 4, relation=REPLACED), 120),
        (vector(2.0, 11.0, 2, relation=REPLACED), 100),
        (vector(9.0, 1.5, 4, relation=REPLACED), 0),
    ],
)
def test_what_integers_attain_is_a_whole_square(event, square):
    assert attained(event) ** 2 == pytest.approx(square, abs=1e-9)


def test_a_group_moves_the_noise_or_the_sample():
    assert for_group(vector(3.0, 10.0), 3) == [(vector(1.0, 30.0), 1)]
    step = sampled(0.1, vector(3.0, 10.0))
    assert for_group(step, 3) == [(sampled(0.1, vector(3.0, 10.0), group_size=3), 1)]
    with pytest.raises(UnsupportedEvent, match="group_size = 3"):
        for_group(sampled(0.1, DiscreteGaussian(noise_multiplier=3.0)), 3)


def test_a_vector_is_never_priced_on_the_atoms_of_one_dimension():
    with pytest.raises(UnsupportedEvent, match="no privacy-loss analysis"):
        domination(sampled(0.1, vector(3.0, 10.0)))


@pytest.mark.parametrize("event", [vector(math.inf, 3.0), vector(1e200, 1e200), vector(1e300, 2)])
def test_noise_where_doubles_end_is_free_or_nearly(event):
    assert PldAccountant().compose(event, 10).epsilon(1e-5).upper < 1e-9
