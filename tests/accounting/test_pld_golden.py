"""Whole runs whose ε is known: the interval holds it, and is as narrow as was asked for."""

import json
import math
import statistics
import time
from fractions import Fraction
from pathlib import Path

import pytest

from accountant import Gaussian, PldAccountant, PoissonSampled, RdpAccountant
from accountant.gaussian import gaussian_epsilon

GOLDEN = Path(__file__).parents[1] / "golden" / "dpsgd_epsilon.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
NAMES = [row["name"] for row in ROWS]
TOO_FINE_FOR_DOUBLES = {  # at a width of 1e-6: ten million steps that cost next to nothing
    "q1e6_a": 1e-5
}


def composed(*parts):
    accountant = PldAccountant()
    for rate, noise, steps in parts:
        step = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
        accountant.compose(step, steps)
    return accountant


def run_of(row):
    return composed((row["q"], row["sigma"], row["steps"]))


def holds(bounds, exact):
    """Compared without rounding: a double against all digits of the table."""
    return Fraction(bounds.lower) <= Fraction(exact) <= Fraction(bounds.upper)


def default_width(epsilon):
    return 1e-3 * epsilon if epsilon < 0.01 else 1e-4 * max(1.0, epsilon)


def test_the_rows_are_all_there():
    assert len(ROWS) == 52


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_interval_holds_the_known_epsilon(row):
    bounds = run_of(row).epsilon(row["delta"])
    assert holds(bounds, row["eps_exact"]), bounds
    assert bounds.upper - bounds.lower <= default_width(bounds.upper)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_width_asked_for_is_the_width_given(row):
    bounds = run_of(row).epsilon(row["delta"], width=1e-6)
    assert holds(bounds, row["eps_exact"]), bounds
    given = TOO_FINE_FOR_DOUBLES.get(row["name"], 1e-6)
    assert bounds.upper - bounds.lower <= given * bounds.upper


@pytest.mark.parametrize("row", ROWS[::5], ids=NAMES[::5])
def test_where_doubles_do_not_resolve_the_width_the_interval_holds_all_the_same(row):
    """The last digits of the table are uncertain by 2e-15 of the value, far less than that."""
    assert holds(run_of(row).epsilon(row["delta"], width=1e-9), row["eps_exact"])


ATTAINED = [  # by a record added too, whose loss is at most −log(1 − q) a step
    row
    for row in ROWS
    if row["q"] < 1 and float(row["eps_exact"]) < -row["steps"] * math.log1p(-row["q"])
][::4]


@pytest.mark.parametrize("row", ATTAINED, ids=[row["name"] for row in ATTAINED])
def test_delta_at_the_known_epsilon_is_the_delta_asked_for(row):
    exact = float(row["eps_exact"])
    if exact == 0:
        assert run_of(row).delta(0.0).upper <= row["delta"]
        return
    bounds = run_of(row).delta(exact)
    assert bounds.lower <= row["delta"] <= bounds.upper
    assert bounds.upper - bounds.lower <= 2e-4 * row["delta"]


@pytest.mark.parametrize(
    ("part", "delta", "exact"),
    [
        ((0.04, 1.5, 2250), 1e-5, 6.768780393418),
        ((0.01, 4.0, 10_000), 1e-5, 0.946866800764),
        ((250 / 60_000, 1.3, 3600), 1e-5, 0.852979522269909),
        ((250 / 60_000, 0.1, 480), 1e-5, 479.0972228429864),
    ],
)
def test_the_customary_runs_cost_what_they_are_known_to(part, delta, exact):
    bounds = composed(part).epsilon(delta, width=1e-8)
    assert bounds.lower == pytest.approx(exact, rel=1e-8)
    assert bounds.upper == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize(
    ("part", "delta", "exact", "peer"),
    [
        ((250 / 60_000, 1.3, 3600), 1e-12, 1.5943712726666661, 1.593063),  # a pessimistic PLD
        ((1.0, 100.0, 10_000), 1e-12, 7.238494, 7.223373),  # the same, by its Poisson branch
        ((0.01, 0.3, 1000), 1e-5, 69.81571, 69.8229),  # the lower end of a PRV interval
        ((1.0, 100.0, 10_000), 1e-12, 7.238494, 7.1713),  # a PRV estimate
    ],
)
def test_where_a_peer_misses_the_truth_we_do_not(part, delta, exact, peer):
    bounds = composed(part).epsilon(delta, width=1e-7)
    assert not bounds.lower <= peer <= bounds.upper
    assert bounds.lower == pytest.approx(exact, rel=1e-6)
    assert bounds.upper == pytest.approx(exact, rel=1e-6)


def test_noise_enough_for_delta_alone_costs_nothing_and_never_less():
    """At σ = 5 and δ = 0.1 a peer's ε is negative."""
    bounds = composed((250 / 60_000, 5.0, 3600)).epsilon(0.1)
    assert (bounds.lower, bounds.upper) == (0.0, 0.0)


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (0.5, 1000), (50.0, 10), (100.0, 10_000)])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.2])
def test_everybody_sampled_costs_what_the_gaussian_mechanism_does(noise, steps, delta):
    bounds = composed((1.0, noise, steps)).epsilon(delta)
    exact, _ = gaussian_epsilon(steps**0.5 / noise, delta)
    assert bounds.lower == pytest.approx(exact, rel=1e-9)
    assert bounds.upper == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("row", ROWS[1::4], ids=NAMES[1::4])
def test_renyi_accounting_never_goes_below(row):
    step = PoissonSampled(sampling_rate=row["q"], event=Gaussian(noise_multiplier=row["sigma"]))
    by_renyi = RdpAccountant().compose(step, row["steps"]).epsilon(row["delta"]).upper
    assert by_renyi >= run_of(row).epsilon(row["delta"]).lower


def test_most_runs_are_priced_in_a_moment():
    """Loose on purpose: a machine may be busy."""
    seconds = []
    for row in ROWS[::3]:
        started = time.process_time()
        run_of(row).epsilon(row["delta"])
        seconds.append(time.process_time() - started)
    assert statistics.median(seconds) < 0.25
