"""An attack's operating points: limits hold together, and ε from below stays below the truth."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from accountant import Gaussian, InvalidValue, TradeOff
from accountant.auditing.many_runs import clopper_pearson
from accountant.auditing.operating import (
    Claim,
    epsilon_of_mu,
    epsilon_of_points,
    mu_of_normal_scores,
    mu_of_points,
    operating_points,
)
from accountant.gaussian import gaussian_epsilon

MU, DELTA = 1.5, 1e-5


def scores(seed, runs=32, mu=MU):
    normal = np.random.default_rng(seed).normal(size=(2, runs))
    return normal[0], normal[1] + mu


def test_limits_are_clopper_pearsons_at_half_of_what_each_point_may_err():
    (point,) = operating_points(range(32), range(20, 52), ranks=[4])
    assert point.false_positives_most == clopper_pearson(3, 32, 0.95)[1]
    assert point.true_positives_least == clopper_pearson(23, 32, 0.95)[0]
    two = operating_points(range(32), range(20, 52), ranks=[4, 9])[0]
    assert two.false_positives_most == clopper_pearson(3, 32, 0.975)[1]


def test_true_rates_lie_within_all_limits_at_once_as_often_as_is_said():
    missed = 0
    for seed in range(300):
        no, yes = scores(seed)
        points = operating_points(no, yes)
        down = np.sort(no)[::-1]
        for point, k in zip(points, (1, 8, 24), strict=True):
            rate, power = 1 - ndtr(down[k - 1]), 1 - ndtr(down[k - 1] - MU)
            if rate > point.false_positives_most or power < point.true_positives_least:
                missed += 1
                break
    assert missed <= 25  # 15 expected at most; more than 25 once in two hundred


@pytest.mark.parametrize("seed", range(3))
def test_points_of_an_honest_mechanism_lie_below_its_curve_and_of_half_its_noise_above(seed):
    curve = TradeOff([(Gaussian(noise_multiplier=1 / MU), 1)])
    assert not any(point.above(curve) for point in operating_points(*scores(seed, 500)))
    bugged = operating_points(*scores(seed, 500, 2 * MU))
    assert any(point.above(curve) for point in bugged)
    assert epsilon_of_mu(mu_of_points(bugged), DELTA) > gaussian_epsilon(MU, DELTA)[0]


def test_a_claim_is_the_curve_of_its_epsilon_and_delta():
    claim = Claim(1.0, 1e-3)
    assert claim.true_positives(0.1) == 1e-3 + math.e * 0.1
    assert claim.true_positives(0.9) == 1 - math.exp(-1) * (1 - 1e-3 - 0.9)
    exact = TradeOff([(Gaussian(noise_multiplier=1.0), 1)])
    at = Claim(gaussian_epsilon(1.0, DELTA)[0], DELTA)
    for rate in (1e-4, 0.01, 0.3, 0.99):
        assert at.true_positives(rate) >= exact.true_positives(rate) - 1e-9


def test_what_assumes_more_shows_more():
    no, yes = scores(4, 2000)
    points = operating_points(no, yes)
    free = epsilon_of_points(points, DELTA)
    by_points = mu_of_points(points)
    by_scores = mu_of_normal_scores(no, yes)
    assert 1 < free < epsilon_of_mu(by_points, DELTA) < epsilon_of_mu(by_scores, DELTA)
    assert by_scores < MU


def test_the_other_tail_counts_too():
    no, yes = scores(0, 1000)
    points = operating_points(no, yes, ranks=[850])
    assert math.log(1 / points[0].false_positives) < 0.2  # all that true positives show
    assert epsilon_of_points(points, DELTA) > 1


def test_scores_that_are_no_numbers_or_too_few_are_refused():
    with pytest.raises(InvalidValue, match="scores = not finite"):
        operating_points([0.0, math.nan], [1.0, 2.0])
    with pytest.raises(InvalidValue, match="two or more"):
        mu_of_normal_scores([0.0], [1.0, 2.0])
    with pytest.raises(InvalidValue, match="rank = 9"):
        operating_points(range(8), range(8), ranks=[9])


def test_scores_alike_show_nothing():
    assert epsilon_of_points(operating_points([1.0] * 9, [1.0] * 9), DELTA) == 0
    assert mu_of_normal_scores([1.0] * 9, [1.0] * 9) == 0
    assert mu_of_points(operating_points([1.0] * 9, [1.0] * 9)) == 0
