"""ε read as risk: held against closed forms, and against attackers who really attack."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from accountant import (
    BudgetNotReached,
    DiscreteGaussian,
    Gaussian,
    InvalidValue,
    Laplace,
    NoCost,
    PoissonSampled,
    RandomizedResponse,
    Relation,
    TradeOff,
    Unreachable,
    attacker_power,
    calibrate_noise,
    calibrate_noise_to_advantage,
    calibrate_noise_to_power,
    risk_of,
)

RATES = (1e-6, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999)
ROUNDING = 1 - 1e-13
REPLACED = Relation.REPLACE_ONE


def gaussian(noise, count=1):
    return [(Gaussian(noise_multiplier=noise), count)]


def dpsgd(noise):
    return [(PoissonSampled(sampling_rate=0.02, event=Gaussian(noise_multiplier=noise)), 200)]


@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("rate", RATES)
def test_gaussian_noise_has_the_textbook_roc(mu, rate):
    exact = norm.cdf(norm.ppf(rate) + mu)
    assert exact * ROUNDING <= TradeOff(gaussian(1 / mu)).true_positives(rate) <= exact + 1e-7


@pytest.mark.parametrize("noise", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("prior", [1e-4, 0.3, 0.5, 0.9])
def test_gaussian_noise_has_the_textbook_bayes_accuracy(noise, prior):
    """Whoever calls a member where π p(x) > (1 − π) q(x)."""
    threshold = 0.5 + noise**2 * math.log((1 - prior) / prior)
    members, others = norm.sf(threshold - 1, scale=noise), norm.cdf(threshold, scale=noise)
    exact = prior * members + (1 - prior) * others
    found = TradeOff(gaussian(noise))
    assert exact * ROUNDING <= found.accuracy(prior) <= exact + 1e-9
    assert found.advantage == pytest.approx(2 * norm.cdf(0.5 / noise) - 1, rel=1e-9)


@pytest.mark.parametrize("rate", RATES)
def test_many_gaussian_releases_are_one(rate):
    many = TradeOff(gaussian(5.0, 25)).true_positives(rate)
    assert many == pytest.approx(norm.cdf(norm.ppf(rate) + 1), rel=1e-7)


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("rate", [0.001, 0.2, 0.7])
def test_laplace_noise_has_its_roc(scale, rate):
    """exp(1/b) α up to where that is a half of exp(…), and the same mirrored."""
    e = math.exp(1 / scale)
    if rate <= 1 / (2 * e):
        exact = e * rate
    elif rate <= 0.5:
        exact = 1 - 1 / (4 * e * rate)
    else:
        exact = 1 - (1 - rate) / e
    found = TradeOff([(Laplace(noise_multiplier=scale), 1)]).true_positives(rate)
    assert exact * ROUNDING <= found <= exact + 1e-5


def best_test(p, q, rate):
    """Neyman and Pearson: outcomes by likelihood ratio, the last by a coin."""
    power = spent = 0.0
    for i in np.argsort(-p / q):
        share = min((rate - spent) / q[i], 1.0)
        power, spent = power + share * p[i], spent + share * q[i]
        if spent >= rate:
            break
    return power


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.6])
def test_answers_by_coin_have_the_roc_of_the_best_test(rate):
    event = RandomizedResponse(noise_parameter=0.5, categories=3)
    one = np.array([4, 1, 1]) / 6
    p = np.array([math.prod(x) for x in itertools.product(*[one] * 4)])
    q = np.array([math.prod(x) for x in itertools.product(*[one[[1, 0, 2]]] * 4)])
    exact = best_test(p, q, rate)
    found = TradeOff([(event, 4)]).true_positives(rate)
    assert exact * ROUNDING <= found <= exact + 1e-4


@pytest.mark.parametrize("wrap", ["continuous", "discrete"])
def test_an_attacker_who_knows_all_is_near_the_curve_and_never_above_it(wrap):
    """Monte Carlo: the likelihood-ratio test on 20 sampled steps, 200,000 runs each way."""
    q, noise, steps, runs = 0.2, 0.8, 20, 200_000
    rng = np.random.default_rng(16)

    def loss(z):
        return np.log1p(q * np.expm1((z - 0.5) / noise**2))

    score = {False: np.zeros(runs), True: np.zeros(runs)}
    for member, _ in itertools.product((False, True), range(steps)):
        taken = (rng.random(runs) < q) * member
        score[member] += loss(taken + noise * rng.standard_normal(runs))
    inner = Gaussian(noise_multiplier=noise)
    if wrap == "discrete":
        inner = DiscreteGaussian(noise_multiplier=noise, sensitivity=4096.0, dimension=100)
    curve = TradeOff([(PoissonSampled(sampling_rate=q, event=inner), steps)])
    for rate in (0.001, 0.01, 0.1, 0.5):
        threshold = np.quantile(score[False][: runs // 2], 1 - rate)
        false = int((score[False][runs // 2 :] > threshold).sum())
        true = int((score[True] > threshold).sum())
        false_high = beta.ppf(1 - 1e-6, false + 1, runs // 2 - false)
        false_low = beta.ppf(1e-6, false, runs // 2 - false + 1)
        bound, least = curve.true_positives(false_high), curve.true_positives(false_low)
        assert binom.sf(true - 1, runs, bound) > 1e-6
        assert true / runs > 0.93 * least
        half = TradeOff([(PoissonSampled(sampling_rate=q, event=inner), steps // 2)])
        caught = binom.sf(true - 1, runs, half.true_positives(false_high)) < 1e-6
        assert caught or rate == 0.5 or rate == 0.001  # planted: half the steps not charged


def test_guesses_of_a_secret_stay_below_what_reconstruction_is_bounded_by():
    """Ten values alike, each moving the sum elsewhere on a circle of radius one."""
    values, noise, runs = 10, 0.7, 100_000
    rng = np.random.default_rng(7)
    angles = 2 * math.pi * np.arange(values) / values
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    secret = rng.integers(values, size=runs)
    seen = points[secret] + noise * rng.standard_normal((runs, 2))
    right = (np.argmax(seen @ points.T, axis=1) == secret).mean()
    [guess] = risk_of(gaussian(noise), chances=[1 / values]).guesses
    assert guess.before < right < guess.after


def test_a_risk_has_all_its_figures_and_no_two_disagree():
    found = risk_of(dpsgd(1.0), prior=0.2, false_positive_rates=[0.01, 0.1], chances=[0.1])
    row = found.membership[1]
    assert row.true_positive_rate == found.guesses[0].after
    odds = 0.2 / 0.8 * row.true_positive_rate / 0.1
    assert row.posterior == pytest.approx(odds / (1 + odds))
    assert row.true_positive_rate - 0.1 <= found.advantage
    assert 0.8 < found.accuracy < 0.8 + 0.2 * found.advantage
    assert json.loads(json.dumps(found.to_json()))["membership"][1]["posterior"] == row.posterior
    assert attacker_power(dpsgd(1.0), [0.1]) == pytest.approx([row.true_positive_rate], rel=1e-4)


def test_it_says_which_neighbours_are_told_apart():
    replaced = [(Gaussian(noise_multiplier=1.0, relation=REPLACED), 1)]
    assert risk_of(replaced).between.endswith("differ by replacing one record")
    grouped = [
        (PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=9), group_size=3), 1)
    ]
    assert risk_of(grouped).between.endswith("adding or removing one person's 3 records")


@pytest.mark.parametrize("events", [[], [(NoCost(), 5)], gaussian(math.inf)])
def test_nothing_released_is_a_coin(events):
    curve = TradeOff(events)
    assert (curve.advantage, curve.accuracy(0.3), curve.true_positives(0.1)) == (0, 0.7, 0.1)


def test_no_noise_is_certainty():
    curve = TradeOff(gaussian(0.0))
    assert (curve.advantage, curve.true_positives(0.1), curve.accuracy(0.1)) == (1, 1, 1)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, math.nan])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InvalidValue, match="false_positive_rate"):
        attacker_power(gaussian(1.0), [rate])
    with pytest.raises(InvalidValue, match="prior"):
        risk_of(gaussian(1.0), prior=rate)
    with pytest.raises(InvalidValue, match="chance"):
        risk_of(gaussian(1.0), chances=[rate])


@pytest.mark.parametrize("advantage", [1e-4, 0.05, 0.9])
def test_noise_for_an_advantage_is_the_textbook_one(advantage):
    exact = 1 / (2 * norm.ppf((1 + advantage) / 2))
    found = calibrate_noise_to_advantage(advantage, gaussian)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 2e-6)


@pytest.mark.parametrize(
    ("tpr", "fpr"), [(0.02, 0.001), (0.9, 0.7), (0.999, 0.001), (1e-5, 1e-6), (0.5, 0.49)]
)
def test_noise_for_true_positives_is_the_textbook_one(tpr, fpr):
    exact = 1 / (norm.ppf(tpr) - norm.ppf(fpr))
    found = calibrate_noise_to_power(tpr, fpr, gaussian)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 2e-6)


def test_noise_found_for_a_sampled_run_keeps_its_bound_and_less_would_not():
    noise = calibrate_noise_to_power(0.05, 0.01, dpsgd)
    assert TradeOff(dpsgd(noise)).true_positives(0.01) <= 0.05 * (1 + 1e-9)
    assert TradeOff(dpsgd(noise * (1 - 1e-4))).true_positives(0.01) > 0.05
    noise = calibrate_noise_to_advantage(0.1, dpsgd)
    assert TradeOff(dpsgd(noise)).advantage <= 0.1
    assert TradeOff(dpsgd(noise * (1 - 1e-4))).advantage > 0.1


def test_what_cannot_be_met_or_need_not_be_is_told():
    with pytest.raises(InvalidValue, match=r"^true_positive_rate = 0\.01: must lie between"):
        calibrate_noise_to_power(0.01, 0.02, gaussian)
    with pytest.raises(InvalidValue, match=r"^advantage = 0: must"):
        calibrate_noise_to_advantage(0, gaussian)
    with pytest.raises(Unreachable, match=r"^advantage = 1e-07: is exceeded"):
        calibrate_noise_to_advantage(1e-7, gaussian)
    hardly = [(PoissonSampled(sampling_rate=1e-3, event=Gaussian(noise_multiplier=1.0)), 1)]
    with pytest.warns(BudgetNotReached, match=r"^advantage = 0\.9: is not reached"):
        calibrate_noise_to_advantage(0.9, lambda noise: hardly)


def test_noise_for_an_attack_is_less_than_for_the_epsilon_that_stops_it():
    """(ε, δ) stops TPR at exp(ε) FPR + δ: to calibrate to that ε costs more noise [Kulynych]."""
    by_epsilon = calibrate_noise(math.log((0.05 - 1e-5) / 0.01), 1e-5, dpsgd)
    assert calibrate_noise_to_power(0.05, 0.01, dpsgd) < 0.8 * by_epsilon


@pytest.mark.parametrize(
    ("event", "count"),
    [
        (PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=0.5)), 1),
        (PoissonSampled(sampling_rate=1e-5, event=Gaussian(noise_multiplier=2.0)), 10),
    ],
)
def test_a_rare_record_is_no_more_at_risk_than_how_often_it_is_there(event, count):
    """δ(0) of one release in closed form, and of a few by their sum."""
    q, noise = event.sampling_rate, event.event.noise_multiplier
    alone = q * (2 * norm.cdf(0.5 / noise) - 1)
    advantage = TradeOff([(event, count)]).advantage
    assert advantage <= count * alone * (1 + 2e-5)
    assert advantage >= alone * ROUNDING


def peers(kind):
    path = Path(__file__).parent.parent / "golden" / "peer_values.jsonl"
    rows = map(json.loads, path.read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


def run_of(row, noise):
    event = PoissonSampled(sampling_rate=row["q"], event=Gaussian(noise_multiplier=noise))
    return [(event, row["steps"])]


@pytest.mark.parametrize("row", peers("noise_for_advantage"), ids=lambda row: row["id"])
def test_noise_for_an_advantage_is_a_peers(row):
    found = calibrate_noise_to_advantage(row["advantage"], lambda noise: run_of(row, noise))
    assert found == pytest.approx(row["value"], rel=5e-4)
    assert TradeOff(run_of(row, found)).advantage <= row["advantage"]


def test_true_positives_at_a_rate_are_a_peers():
    (row,) = peers("true_positives")
    found = TradeOff(run_of(row, row["sigma"])).true_positives(row["fpr"])
    assert found == pytest.approx(row["value"], rel=1e-3)
