"""δ of ε and ε of δ, exactly: the interval holds values known to 25 digits, and is narrow."""

import json
import math
from fractions import Fraction
from pathlib import Path

import pytest

from accountant import (
    DiscreteGaussian,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RandomizedResponse,
    RdpAccountant,
    Relation,
    gdp_epsilon,
    gdp_mu,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def rows(table, kind):
    lines = (GOLDEN / table).read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def holds(bounds, value):
    """Compared without rounding: a double against 25 digits."""
    return Fraction(bounds.lower) <= Fraction(value) <= Fraction(bounds.upper)


def relative_width(bounds):
    return (bounds.upper - bounds.lower) / bounds.upper if bounds.upper else 0.0


def plain(mu):
    return PldAccountant().compose(Gaussian(noise_multiplier=1 / mu))


def sampled(rate, event):
    return PoissonSampled(sampling_rate=rate, event=event)


def test_epsilon_of_plain_gaussian_noise_is_held_to_nine_digits():
    found = rows("mechanisms_exact.jsonl", "gaussian_eps")
    assert len(found) == 48
    for row in found:
        bounds = plain(row["mu"]).epsilon(row["delta"])
        assert holds(bounds, row["value"]), (row, bounds)
        assert relative_width(bounds) <= 1e-9, (row, bounds)


def test_delta_of_plain_gaussian_noise_is_held_to_nine_digits():
    found = rows("mechanisms_exact.jsonl", "gaussian_delta")
    assert len(found) == 38
    for row in found:
        bounds = plain(row["mu"]).delta(row["eps"])
        assert holds(bounds, row["value"]), (row, bounds)
        assert relative_width(bounds) <= 1e-9, (row, bounds)


def test_the_noise_known_to_meet_an_epsilon_meets_it_and_no_less_does():
    found = rows("mechanisms_exact.jsonl", "gaussian_sigma")
    assert len(found) == 22
    for row in found:
        noise = float(row["value"]) / row["sensitivity"]
        assert plain(1 / noise).epsilon(row["delta"]).lower <= row["eps"] * (1 + 1e-11)
        assert plain(1 / noise).epsilon(row["delta"]).upper >= row["eps"] * (1 - 1e-11)
        assert plain(1.001 / noise).epsilon(row["delta"]).lower > row["eps"]
        assert plain(0.999 / noise).epsilon(row["delta"]).upper < row["eps"]


def test_the_central_limit_is_the_known_estimate():
    for kind, estimate in (
        ("gdp_mu_poisson", lambda events, row: gdp_mu(events)),
        ("gdp_eps_poisson", lambda events, row: gdp_epsilon(events, row["delta"])),
    ):
        found = rows("mechanisms_exact.jsonl", kind)
        assert len(found) == 6
        for row in found:
            step = sampled(row["q"], Gaussian(noise_multiplier=row["sigma"]))
            value = estimate([(step, row["steps"])], row)
            assert value == pytest.approx(float(row["value"]), rel=1e-12)


def check_delta(event, row):
    bounds = PldAccountant().compose(event, row["steps"]).delta(row["eps"])
    assert holds(bounds, row["value"]), (row, bounds)
    assert relative_width(bounds) <= 2e-4, (row, bounds)


def test_delta_of_repeated_answers_is_held():
    """ε₀-randomized response: the truth with probability exp(ε₀)/(1 + exp(ε₀))."""
    found = rows("mechanisms_exact.jsonl", "delta_rr_composed")
    assert len(found) == 63
    for row in found:
        check_delta(RandomizedResponse(noise_parameter=2 / (1 + math.exp(row["eps0"]))), row)


def test_delta_of_repeated_laplace_noise_is_held():
    found = rows("mechanisms_exact.jsonl", "delta_laplace_composed")
    assert len(found) == 48
    for row in found:
        check_delta(Laplace(noise_multiplier=row["scale"]), row)


def composed(*parts):
    accountant = PldAccountant()
    accountant.compose_all(parts)
    return accountant


LAPLACE_RUNS = [  # parts, δ, ε, tolerance: the first two by a peer, the last exact
    ([(Laplace(noise_multiplier=1.0), 3), (Laplace(noise_multiplier=2.0), 2)], 1e-14, 4.0, 1e-6),
    ([(sampled(0.2, Laplace(noise_multiplier=0.5)), 3)], 1e-14, 2.46964, 1e-3),
    (
        [
            (sampled(0.005, Gaussian(noise_multiplier=0.8)), 100),
            (Gaussian(noise_multiplier=8.0), 200),
            (Laplace(noise_multiplier=10.0), 100),
        ],
        1e-6,
        11.14920034385383,
        0.0,
    ),
]


@pytest.mark.parametrize(("parts", "delta", "known", "tolerance"), LAPLACE_RUNS)
def test_laplace_noise_composed_with_others_costs_the_known_epsilon(parts, delta, known, tolerance):
    bounds = composed(*parts).epsilon(delta)
    assert bounds.lower - tolerance <= known <= bounds.upper + tolerance
    assert bounds.upper - bounds.lower <= 2e-4 * known


REPLACED = Gaussian(noise_multiplier=1.0, relation=Relation.REPLACE_ONE)
RUNS = [
    (Laplace(noise_multiplier=2.0), 30),
    (DiscreteGaussian(noise_multiplier=3.0, sensitivity=2), 30),
    (RandomizedResponse(noise_parameter=0.7, categories=5), 20),
    (ExponentialMechanism(epsilon=0.1), 100),
    (ExponentialMechanism(epsilon=1.0), 10),
    (sampled(0.05, Laplace(noise_multiplier=1.0)), 100),
    (sampled(0.05, DiscreteGaussian(noise_multiplier=1.0)), 100),
    (PoissonSampled(sampling_rate=0.3, event=Gaussian(noise_multiplier=4.0), group_size=5), 10),
    (sampled(0.05, REPLACED), 100),
    (FixedSizeSampled(dataset_size=100, batch_size=5, event=REPLACED), 100),
]


@pytest.mark.parametrize(("event", "count"), RUNS)
def test_two_accountants_never_contradict_each_other(event, count):
    """What some neighbours are known to cost is never above what a Rényi curve allows for all."""
    exact = composed((event, count)).epsilon(1e-5)
    assert 0 < exact.lower <= exact.upper < math.inf
    assert exact.lower <= RdpAccountant().compose(event, count).epsilon(1e-5).upper


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_an_exponential_mechanism_costs_no_less_than_two_outcomes_and_no_more_than_renyi(rate):
    """No neighbours attain the envelope: what is attained is two outcomes, of losses ±ε/2."""
    relation = Relation.ADD_OR_REMOVE_ONE
    mechanism = ExponentialMechanism(epsilon=1.0, relation=relation)
    two = RandomizedResponse(noise_parameter=2 / (1 + math.exp(0.5)), relation=relation)
    chosen, answered = PldAccountant(), PldAccountant()
    chosen.compose(PoissonSampled(sampling_rate=rate, event=mechanism), 10)
    answered.compose(PoissonSampled(sampling_rate=rate, event=two), 10)
    bounds, attained = chosen.epsilon(1e-5), answered.epsilon(1e-5)
    assert attained.lower == pytest.approx(bounds.lower, rel=2e-4)
    by_renyi = RdpAccountant().compose(PoissonSampled(sampling_rate=rate, event=mechanism), 10)
    assert attained.upper < bounds.upper <= by_renyi.epsilon(1e-5).upper
