"""ε as measured by who sees noisy sums alone: below the truth whatever the records do, and near."""

import numpy as np
import pytest

from accountant import Gaussian, PldAccountant, PoissonSampled
from accountant.auditing.seen_outside import HEIGHTS, epsilon_seen, height_seen, step_seen, stray
from dpsgd_torch.audit.outsider import Outsider

RATE, NOISE, STEPS, COUNT, DELTA = 0.1, 1.2, 60, 400, 1e-5


def none(told, rng):
    """Records that leave canaries' coordinates alone."""
    return 0.0


def drifting(told, rng):
    """All gradients push one way."""
    return 1.5


def answering(told, rng):
    """Records undo what they saw last, as training does, and so depend on who joined."""
    return -0.8 * told


def loud(told, rng):
    return 3.0 * rng.standard_normal(COUNT)


def simulated(records, seed, *, height=1.0, noise=NOISE, rate=RATE):
    rng = np.random.default_rng(seed)
    outsider = Outsider(
        COUNT, STEPS, rate=RATE, noise_multiplier=NOISE, confidence=0.95
    )  # what is declared
    coins = rng.random(COUNT) < 0.5
    told, joins = np.zeros(COUNT), 0
    for _ in range(STEPS):
        drawn = rng.random(COUNT) < rate
        joins += int(drawn.sum())
        told = records(told, rng) + height * (drawn & coins) + noise * rng.standard_normal(COUNT)
        outsider.see(told, np.flatnonzero(drawn & coins), coins, NOISE)
    return outsider.seen(joins, COUNT * STEPS)


@pytest.mark.parametrize("records", [none, drifting, answering, loud])
def test_limits_of_300_audits_lie_beyond_the_truth_no_more_often_than_declared(records):
    beyond = 0
    for seed in range(300):
        step = step_seen(simulated(records, seed))
        beyond += step is not None and step.noise_multiplier < NOISE
    assert beyond <= 15 + 11  # 5 % of 300, and three of its deviations


def test_the_bound_is_near_where_records_are_quiet_and_falls_where_they_are_loud():
    event = PoissonSampled(sampling_rate=RATE, event=Gaussian(noise_multiplier=NOISE))
    truth = PldAccountant().compose(event, STEPS).epsilon(DELTA).upper
    quiet, noisy = (epsilon_seen(simulated(r, 1), delta=DELTA) for r in (none, loud))
    assert 0.7 * truth < quiet < truth
    assert noisy < 0.5 * quiet


@pytest.mark.parametrize("fault", [{"noise": NOISE / 2}, {"height": 2.0}])
def test_half_the_noise_or_twice_the_reach_lies_above_what_is_certified(fault):
    event = PoissonSampled(sampling_rate=RATE, event=Gaussian(noise_multiplier=NOISE))
    truth = PldAccountant().compose(event, STEPS).epsilon(DELTA).upper
    assert epsilon_seen(simulated(none, 1, **fault), delta=DELTA) > truth


def test_records_that_drift_are_not_taken_for_a_canary():
    seen = simulated(drifting, 1, height=0.0)
    assert height_seen(seen, 0.05) == 0.0
    assert epsilon_seen(seen, delta=DELTA) == 0.0


def test_stray_is_the_log_of_a_mean_and_convex():
    x = np.array([-1.0, 0.0, 2.0])
    direct = np.log(0.7 * np.exp(-0.3 * x) + 0.3 * np.exp(0.7 * x))
    assert np.allclose(stray(x, 0.3), direct, rtol=1e-12)
    curve = stray(HEIGHTS, 0.3)
    assert (np.diff(curve, 2) > 0).all()


def test_a_run_without_sampling_or_with_steps_missing_is_not_measured_from_outside():
    whole = Outsider(10, 5, rate=1.0, noise_multiplier=1.0, confidence=0.95)
    whole.see(np.zeros(10), np.arange(3), np.arange(10) < 5, 1.0)
    assert whole.seen(10, 10) is None
    sampled = Outsider(10, 5, rate=0.5, noise_multiplier=1.0, confidence=0.95)
    sampled.see(np.zeros(10), np.arange(3), np.arange(10) < 5, 1.0)
    assert sampled.seen(5, 10) is not None
    assert sampled.seen(5, 20) is None
