"""One truth, many intervals: asked for at several widths, they all hold it, so they overlap.

Two that do not would prove one of them wrong, whatever the truth is: the cheapest test of a
certificate, and the only one where no closed form reaches.
"""

import math
import random

import pytest

from accountant import (
    DiscreteGaussian,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RandomizedResponse,
    RdpAccountant,
    Relation,
)

ADDED, REPLACED = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE


def step(rate, noise, group_size=1):
    return PoissonSampled(
        sampling_rate=rate, event=Gaussian(noise_multiplier=noise), group_size=group_size
    )


def check_overlap(parts, delta, widths):
    accountant, by_renyi = PldAccountant(), RdpAccountant()
    accountant.compose_all(parts)
    by_renyi.compose_all(parts)
    intervals = [accountant.epsilon(delta, width) for width in widths]
    assert all(interval.lower <= interval.upper for interval in intervals), intervals
    lower = max(interval.lower for interval in intervals)
    assert lower <= min(interval.upper for interval in intervals), intervals
    assert lower <= by_renyi.epsilon(delta).upper


ROUNDING = [  # where a loss, or the logarithm of a moment, is next to nothing and n of them are not
    (
        [(step(1.3029370750436393e-06, 0.33258892903086124), 530_926_991)],
        0.003539911728547692,
        3e-8,
    ),
    (
        [(step(2.1204689862726955e-07, 0.20596451978519556), 205_521_528)],
        6.60973971778161e-08,
        3e-9,
    ),
    (
        [(step(4.2241093555731204e-08, 0.20686121427270476), 459_446_190)],
        8.143118731724595e-07,
        1e-8,
    ),
    (
        [(step(0.00010987411331825932, 0.5994734272770208), 1_681_833)],
        1.2332779903218552e-07,
        1e-11,
    ),
]


@pytest.mark.parametrize(("parts", "delta", "width"), ROUNDING)
def test_rounding_of_many_tiny_losses_is_allowed_for(parts, delta, width):
    check_overlap(parts, delta, (None, width))


@pytest.mark.parametrize(
    ("rate", "count", "delta", "exact"),
    [  # by the binomial series of log M to seventh order, and a contour at 30 digits
        (1e-6, 10**9, 1e-5, 0.130421842030643876),
        (1e-6, 10**10, 1e-6, 0.530173787401602488),
        (1e-7, 10**12, 1e-6, 0.53015352202604043),
        (1e-8, 10**13, 1e-5, 0.130407654587144809),
    ],
)
@pytest.mark.parametrize("width", [None, 1e-6])
def test_a_trillion_steps_that_hardly_see_the_record_are_held(rate, count, delta, exact, width):
    bounds = PldAccountant().compose(step(rate, 1.0), count).epsilon(delta, width)
    assert bounds.lower <= exact <= bounds.upper


HARD = [
    ([(step(0.5, 0.02), 1)], 1e-5),
    ([(step(0.01, 0.02), 100)], 1e-5),
    ([(step(0.3, 1e4), 10**6)], 1e-9),
    ([(step(1 - 1e-9, 0.2), 3)], 1e-8),
    ([(step(0.999, 2.0), 40)], 1e-12),
    ([(step(0.01, 1.0), 100)], 1e-30),
    ([(step(0.1, 1.0), 100)], 0.9),
    ([(step(1e-4, 0.4), 40_000), (step(0.1, 2.0), 100), (step(1.0, 30.0), 7)], 1e-5),
    ([(step(0.9, 50.0), 1000), (step(1e-5, 0.3), 10**6)], 1e-7),
    ([(step(0.02, 0.05), 2), (step(0.3, 500.0), 10**6)], 1e-5),
    ([(step(0.01, 1.0, 16), 50)], 1e-5),
    ([(step(0.2, 9.0, 5), 300), (step(0.01, 0.8), 100)], 1e-6),
    ([(Laplace(noise_multiplier=3.0), 20)], 1e-6),
    ([(RandomizedResponse(noise_parameter=0.3, categories=4, relation=ADDED), 30)], 1e-4),
    ([(PoissonSampled(sampling_rate=0.2, event=Laplace(noise_multiplier=0.8)), 40)], 1e-6),
    ([(DiscreteGaussian(noise_multiplier=4.0, sensitivity=3), 25), (step(0.05, 1.0), 50)], 1e-6),
    ([(Laplace(noise_multiplier=50.0), 300), (step(0.01, 1.0), 500)], 1e-8),
]


@pytest.mark.parametrize(("parts", "delta"), HARD)
def test_intervals_of_different_widths_overlap(parts, delta):
    check_overlap(parts, delta, (1e-2, None, 1e-6))


def some_schedule(chance):
    """Very different noises and rates side by side, every kind of δ, 10 to 10⁶ steps of each."""
    parts = []
    for _ in range(chance.choice([1, 1, 2, 4])):
        rate = 10 ** chance.uniform(-3.5, 0)
        if chance.random() < 0.3:
            rate = 1 - 10 ** chance.uniform(-8, -0.5)
        parts.append((step(rate, 10 ** chance.uniform(-0.3, 2)), int(10 ** chance.uniform(1, 6))))
    return parts, 10 ** chance.uniform(-14, -0.5)


@pytest.mark.parametrize("seed", range(18))
def test_intervals_of_any_schedule_overlap(seed):
    check_overlap(*some_schedule(random.Random(seed)), (3e-3, None, 1e-6))


@pytest.mark.parametrize(("size", "batch", "noise"), [(100, 99, 0.05), (1000, 10, 1.0)])
def test_what_neighbours_cost_is_never_above_what_is_allowed_for_them(size, batch, noise):
    inner = Gaussian(noise_multiplier=noise, relation=REPLACED)
    event = FixedSizeSampled(dataset_size=size, batch_size=batch, event=inner)
    for count in (1, 30):
        check_overlap([(event, count)], 1e-5, (1e-2, None))


def test_delta_and_epsilon_overlap_too():
    accountant = PldAccountant().compose(step(0.01, 1.0), 1000)
    for delta in (1e-12, 1e-6, 1e-2):
        bounds = accountant.epsilon(delta)
        assert accountant.delta(bounds.lower).upper >= delta
        assert accountant.delta(bounds.upper).lower <= delta


@pytest.mark.parametrize("epsilon", [-40.0, -3.0, -0.1, 0.0])
def test_delta_is_held_at_and_below_zero_too(epsilon):
    """E(1 − exp(ε − L))₊ is at least 1 − exp(ε), which it tends to."""
    bounds = PldAccountant().compose(step(0.01, 1.0), 100).delta(epsilon)
    assert -math.expm1(epsilon) <= bounds.upper <= 1
    assert 0 <= bounds.lower <= bounds.upper
