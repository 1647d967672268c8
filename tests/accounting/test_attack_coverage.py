"""300 audits of mechanisms whose trade-off is known: bounds lie above as rarely as is said."""

import numpy as np
import pytest
from scipy.stats import binom

from accountant import Gaussian, InvalidValue, PldAccountant, PoissonSampled, TradeOff
from accountant.auditing.against import contradicts
from accountant.auditing.many_models import accuracy_of_models, epsilon_of_accuracy, mu_of_models
from accountant.auditing.operating import (
    epsilon_of_points,
    mu_of_normal_scores,
    mu_of_points,
    operating_points,
)

AUDITS, MODELS, CANARIES, MU, DELTA = 300, 64, 20, 2.0, 1e-5
SLACK = binom.ppf(0.999, AUDITS, 0.05)


def test_one_record_of_a_gaussian():
    above = np.zeros(2)
    shown = []
    for seed in range(AUDITS):
        normal = np.random.default_rng(seed).normal(size=(2, MODELS // 2))
        no, yes = normal[0], normal[1] + MU
        by_points, by_scores = mu_of_points(operating_points(no, yes)), mu_of_normal_scores(no, yes)
        above += np.array([by_points, by_scores]) > MU
        shown.append((by_points, by_scores))
    assert (above <= SLACK).all()
    assert above[1] > 2  # exact: about fifteen
    assert (np.median(shown, axis=0) > [0.6, 1.35]).all()


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_mean_of_models_holds_whether_their_canaries_depend_on_one_another_or_not(shared):
    above, shown = 0, []
    for seed in range(AUDITS):
        rng = np.random.default_rng(seed)
        coins = rng.random((MODELS, CANARIES)) < 0.5
        noise = np.sqrt(1 - shared) * rng.normal(size=coins.shape)
        noise += np.sqrt(shared) * rng.normal(size=(MODELS, 1))
        right = ((coins - 0.5) * MU + noise > 0) == coins
        shown.append(mu_of_models(right.mean(1)))
        above += shown[-1] > MU
    assert above <= SLACK
    if not shared:
        assert np.median(shown) > 1.6


def test_a_poisson_sampled_gaussian_by_what_assumes_nothing():
    event = PoissonSampled(sampling_rate=0.3, event=Gaussian(noise_multiplier=0.5))
    truth, curve = PldAccountant().compose(event, 1).epsilon(DELTA).upper, TradeOff([(event, 1)])
    most = (1 + curve.delta(0.0)) / 2
    above = np.zeros(3)
    for seed in range(AUDITS):
        rng = np.random.default_rng(seed)
        coins = rng.random((MODELS, CANARIES)) < 0.5
        scores = coins * (rng.random(coins.shape) < 0.3) + 0.5 * rng.normal(size=coins.shape)
        one = operating_points(scores[:, 0][~coins[:, 0]], scores[:, 0][coins[:, 0]])
        accuracy = accuracy_of_models(((scores > 0.5) == coins).mean(1))
        above += [
            epsilon_of_points(one, DELTA) > truth,
            accuracy > most,
            epsilon_of_accuracy(accuracy, DELTA) > truth,
        ]
    assert (above <= SLACK).all()


def test_a_certified_curve_is_contradicted_by_more_than_it_allows_alone():
    curve = TradeOff([(Gaussian(noise_multiplier=1.0), 1)])
    assert not contradicts(curve, 1000, 172, 140)
    assert contradicts(curve, 1000, 172, 171)


def test_shares_are_shares():
    assert accuracy_of_models([0.0, 1.0]) == 0
    assert epsilon_of_accuracy(0.4, DELTA) == 0
    with pytest.raises(InvalidValue, match=r"must lie in \[0, 1\]"):
        accuracy_of_models([1.5])
