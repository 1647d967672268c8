"""Lower bounds on ε: above the truth in one audit of twenty at most, and not far below it."""

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import binom, norm

from accountant import Gaussian, InvalidValue, PldAccountant, PoissonSampled
from accountant.auditing.many_runs import clopper_pearson, epsilon_from_rates
from accountant.auditing.measured import Measurements, epsilon_as_measured, measured_step
from accountant.auditing.one_run import (
    epsilon_f_dp,
    epsilon_gaussian,
    epsilon_one_run,
    mu_f_dp,
    p_value_one_run,
    refuted,
)

AUDITS, CANARIES, GUESSES, DELTA = 300, 1000, 200, 1e-5
SLACK = binom.ppf(0.999, AUDITS, 0.05)  # of 300 audits that are above in one of twenty
ONE_RUN = {
    "binomial": epsilon_one_run,
    "f-DP": epsilon_f_dp,
    "Gaussian": epsilon_gaussian,
}


def above_and_ratio(bound, truth, correct):
    """In how many audits the bound is above the truth, and its median over the truth."""
    bound = lru_cache(bound)
    found = [bound(CANARIES, GUESSES, int(v), delta=DELTA) for v in correct]
    return sum(e > truth for e in found), float(np.median(found)) / truth


def surest(scores, coins):
    """How many of the surest guesses are right: half are the highest scores, half the lowest."""
    order, half = np.argsort(scores), GUESSES // 2
    return int(coins[order[-half:]].sum() + half - coins[order[:half]].sum())


def gaussian_audit(rng, mu):
    coins = rng.integers(2, size=CANARIES)
    return surest(mu * coins + rng.standard_normal(CANARIES), coins)


def sampled_audit(rng, rate, noise, steps):
    """Scores are likelihood ratios of all steps, as an attacker sees them."""
    coins = rng.integers(2, size=CANARIES)
    scores = np.zeros(CANARIES)
    for _ in range(steps):
        seen = coins * (rng.random(CANARIES) < rate) + noise * rng.standard_normal(CANARIES)
        scores += np.log1p(rate * np.expm1((2 * seen - 1) / (2 * noise**2)))
    return surest(scores, coins)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_bounds_of_a_gaussian_are_below_the_truth_and_not_far(epsilon):
    mu = {1.0: 0.26808, 3.0: 0.71917, 8.0: 1.66586}[epsilon]
    truth = PldAccountant().compose(Gaussian(noise_multiplier=1 / mu)).epsilon(DELTA).lower
    assert truth == pytest.approx(epsilon, rel=5e-3)
    rng = np.random.default_rng(int(epsilon))
    correct = [gaussian_audit(rng, mu) for _ in range(AUDITS)]
    ratios = {}
    for name, bound in ONE_RUN.items():
        above, ratios[name] = above_and_ratio(bound, truth, correct)
        assert above <= SLACK, name
    assert ratios["binomial"] > 0.2
    assert ratios["Gaussian"] > 0.3
    assert ratios["Gaussian"] > ratios["binomial"]  # which assumes less


def test_bounds_of_a_poisson_sampled_gaussian_are_below_the_truth_and_not_far():
    rate, noise, steps = 0.1, 0.8, 40
    step = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
    truth = PldAccountant().compose(step, steps).epsilon(DELTA).lower
    rng = np.random.default_rng(4)
    correct = [sampled_audit(rng, rate, noise, steps) for _ in range(AUDITS)]
    for name in ("binomial", "f-DP"):  # its trade-off is no Gaussian's
        above, ratio = above_and_ratio(ONE_RUN[name], truth, correct)
        assert above <= SLACK, name
        assert ratio > 0.15, name


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_bounds_of_randomized_response_are_tight(epsilon):
    """Every coin is told with the binomial's own chance: the worst there is at this ε."""
    right = 1 / (1 + math.exp(-epsilon))
    correct = np.random.default_rng(5).binomial(GUESSES, right, size=AUDITS)
    for name in ("binomial", "f-DP"):
        above, ratio = above_and_ratio(ONE_RUN[name], epsilon, correct)
        assert above <= SLACK, name
        assert ratio > 0.5, name


def test_a_bound_that_forgets_its_confidence_is_caught():
    right = 1 / (1 + math.exp(-2.0))
    correct = np.random.default_rng(6).binomial(GUESSES, right, size=AUDITS)
    above, _ = above_and_ratio(
        lambda m, r, v, delta: epsilon_one_run(m, r, v, delta=delta, confidence=0.8), 2.0, correct
    )
    assert above > SLACK


def test_the_mechanism_as_measured_is_below_the_truth_and_near():
    rate, noise, steps, canaries = 0.05, 1.0, 60, 400
    step = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
    truth = PldAccountant().compose(step, steps).epsilon(DELTA).upper
    rng, found = np.random.default_rng(7), []
    for _ in range(AUDITS):
        chances = int(rng.binomial(canaries, 0.5)) * steps
        joins = int(rng.binomial(chances, rate))
        found.append(
            Measurements(
                values=canaries * steps,
                energy=noise**2 * rng.chisquare(canaries * steps),
                joins=joins,
                chances=chances,
                height=1 + noise * rng.standard_normal() / math.sqrt(joins),
                steps=steps,
            )
        )
    epsilons = [epsilon_as_measured(each, delta=DELTA) for each in found[:60]]
    assert sum(e > truth for e in epsilons) <= binom.ppf(0.999, 60, 0.05)
    assert np.median(epsilons) / truth > 0.7
    limits = [measured_step(each) for each in found]
    wrong = [e.sampling_rate > rate or e.noise_multiplier < noise for e in limits]
    assert sum(wrong) <= SLACK


def test_a_mechanism_that_adds_no_noise_has_no_epsilon_and_one_without_canaries_shows_none():
    seen = {"values": 100, "joins": 10, "chances": 100, "steps": 5}
    assert (
        epsilon_as_measured(Measurements(energy=0.0, height=1.0, **seen), delta=DELTA) == math.inf
    )
    assert epsilon_as_measured(Measurements(energy=100.0, height=0.0, **seen), delta=DELTA) == 0
    assert measured_step(Measurements(energy=1.0, height=1.0, **{**seen, "joins": 0})) is None


def test_rates_of_many_runs_are_below_the_truth():
    mu, runs, rng = 1.5, 500, np.random.default_rng(8)
    truth = PldAccountant().compose(Gaussian(noise_multiplier=1 / mu)).epsilon(DELTA).lower
    above = 0
    for _ in range(AUDITS):
        tp, fp = rng.binomial(runs, norm.sf(2.5 - mu)), rng.binomial(runs, norm.sf(2.5))
        above += epsilon_from_rates(int(tp), runs, int(fp), runs, delta=DELTA) > truth
    assert above <= SLACK
    assert epsilon_from_rates(500, 500, 0, 500, delta=DELTA) > 4


def test_clopper_pearson_covers():
    for p in (0.01, 0.5, 0.97):
        k = np.arange(51)
        ends = np.array([clopper_pearson(int(i), 50) for i in k])
        held = (ends[:, 0] <= p) & (p <= ends[:, 1])
        assert binom.pmf(k, 50, p)[held].sum() >= 0.95


def test_p_values_are_those_of_the_paper():
    """δ by hand: 2mδ max_i P(v − i ≤ W < v) / i, with fair coins."""
    below = np.cumsum(binom.pmf([2, 1, 0], 4, 0.5))
    by_hand = binom.sf(2, 4, 0.5) + 2 * 10 * 0.01 * max(below / [1, 2, 3])
    assert p_value_one_run(10, 4, 3, 0.0, 0.01) == pytest.approx(by_hand, rel=1e-14)


def test_the_chance_of_many_right_guesses_is_refuted_just_where_a_linear_program_says_so():
    """The tails of ``refuted`` against all laws of the count that the curve allows."""
    from scipy.optimize import linprog

    m = guesses = 12
    epsilon, correct = 0.7, 10
    a = [[0.0] * (guesses + 1) for _ in range(guesses)]
    for n in range(guesses):  # Σ_{i>n} i p_i ≤ e^ε Σ_{i≥n} (c' − i) p_i
        for i in range(n, guesses + 1):
            a[n][i] = (i if i > n else 0) - math.exp(epsilon) * (guesses - i)
    goal = [-float(i >= correct) for i in range(guesses + 1)]
    best = -linprog(goal, A_ub=a, b_ub=[0.0] * guesses, A_eq=[[1.0] * (guesses + 1)], b_eq=[1]).fun

    def least_wrong(right):
        return right * math.exp(-epsilon)

    assert not refuted(least_wrong, m, guesses, correct, best * (1 - 1e-6))
    assert refuted(least_wrong, m, guesses, correct, best * (1 + 1e-6))


def test_more_right_guesses_never_show_less():
    for bound in (mu_f_dp, *(lambda *a, b=b: b(*a, delta=DELTA) for b in ONE_RUN.values())):
        found = [bound(100, 50, v) for v in range(0, 51, 5)]
        assert found == sorted(found)
        assert found[5] == 0 < found[10]


def test_counts_that_no_audit_has_are_refused():
    for counts in ((10, 11, 5), (10, 5, 6), (0, 0, 0)):
        with pytest.raises(InvalidValue):
            epsilon_one_run(*counts, delta=DELTA)
    with pytest.raises(InvalidValue, match=r"confidence = 1\.0"):
        epsilon_f_dp(10, 10, 10, delta=DELTA, confidence=1.0)
