"""A record removed and a record added are different: each costs what is known of it alone."""

import json
import math
from pathlib import Path

import pytest

from accountant import Gaussian, PldAccountant, PoissonSampled
from accountant.dominating_pairs.of_events import domination
from accountant.pld.certify import epsilon_bounds
from accountant.pld.sums import Sum

GOLDEN = Path(__file__).parents[1] / "golden" / "dpsgd_epsilon.jsonl"
ROWS = {row["name"]: row for row in map(json.loads, GOLDEN.read_text().splitlines())}

# From the reference table that dpsgd_epsilon.jsonl is drawn from: ε where the record is added.
ADDED = {
    "seed001": 0.791482016469793,
    "seed000": 0.31687386899500813,
    "seed002": 0.30193723210748724,
    "tfp_tut_a": 0.801445915835404,
    "tfp_tut_b": 2.2436508016201717,
    "tfp_test0": 0.6046207591339202,
    "tfp_stmt_nomb": 0.3608600287756688,
    "tfp_stmt_mb": 0.8537636673386724,
    "opacus_unit": 6.178552646048088,
    "opacus_script": 0.6807984190012109,
    "jaxp_doc": 3.5053777062710143,
    "abadi": 0.9370364254020579,
    "bu_mnist_b": 5.651357960707557,
    "prv_doc": 1.0539435911897663,
    "cifar_b4096": 4.152453495059683,
    "imagenet": 1.2709366965244357,
    "fed_users": 0.4627275637188835,
    "census": 0.6215758807497651,
    "small_n": 4.969043452565846,
    "sst2": 1.4010074005914455,
    "tiny_delta_a": 1.3996968588598313,
    "tiny_delta_c": 1.10179841452816,
    "tiny_delta_d": 4.3638951216812085,
    "loose_delta": 0.30313630563163774,
    "q1e6_d": 1.0418560867217477,
    "q1e5_T1e6": 0.044900280604812805,
    "tinyeps_a": 0.0019422675180854343,
    "tinyeps_b": 0.01590424126112553,
    "tinyeps_d": 0.004374909425757132,
    "bigq_a": 26.77224924910408,
    "bigq_b": 27.74201024525908,
    "bigq_c": 2.3040419719001406,
    "bigq_d": 35.48016967599294,
    "fewsteps_b": 0.5677269897599297,
    "fewsteps_d": 0.09704088716339428,
    "fewsteps_e": 0.4818657422672337,
}
LITTLE_NOISE = ["seed003", "tfp_test2", "lown_a", "lown_b", "lown_c"]
REMOVED_RECORD, ADDED_RECORD = 0, 1


def one_way(row, kind, width=1e-5):
    step = PoissonSampled(sampling_rate=row["q"], event=Gaussian(noise_multiplier=row["sigma"]))
    losses = Sum([(domination(step).upper[kind], row["steps"])])
    return epsilon_bounds(losses, row["delta"], lambda epsilon: max(width * epsilon, 1e-12))


@pytest.mark.parametrize("name", ADDED)
def test_a_record_added_costs_what_is_known(name):
    lower, upper = one_way(ROWS[name], ADDED_RECORD)
    assert lower <= ADDED[name] <= upper
    assert upper - lower <= 1e-3 * upper


@pytest.mark.parametrize("name", ADDED)
def test_a_record_removed_costs_the_epsilon_of_the_run(name):
    exact = float(ROWS[name]["eps_exact"])
    lower, upper = one_way(ROWS[name], REMOVED_RECORD)
    assert lower <= exact <= upper
    assert exact > ADDED[name]


@pytest.mark.parametrize("name", LITTLE_NOISE)
def test_a_record_added_shows_no_more_than_that_it_was_never_sampled(name):
    row = ROWS[name]
    _, upper = one_way(row, ADDED_RECORD)
    assert 0 < upper <= -row["steps"] * math.log1p(-row["q"]) * (1 + 1e-12)


def test_a_run_costs_the_larger_of_both_and_not_a_mixture_of_them():
    """At each step the record may be there or not, but it is the same data set throughout."""
    parts = [(0.5, 4.0, 10), (0.001, 0.5, 50)]
    steps = [
        (PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise)), count)
        for rate, noise, count in parts
    ]
    accountant = PldAccountant()
    accountant.compose_all(steps)
    whole = accountant.epsilon(1e-5, width=1e-6)
    ways = [
        epsilon_bounds(
            Sum([(domination(step).upper[kind], count) for step, count in steps]),
            1e-5,
            lambda epsilon: 1e-6 * epsilon,
        )
        for kind in (REMOVED_RECORD, ADDED_RECORD)
    ]
    assert whole.lower <= max(upper for _, upper in ways)
    assert whole.upper >= max(lower for lower, _ in ways)


@pytest.mark.parametrize("name", ["seed001", "small_n", "bigq_c"])
def test_the_anchors_tell_the_directions_apart(name):
    """Exchanged, either would be caught by the other's figure."""
    exact = float(ROWS[name]["eps_exact"])
    assert one_way(ROWS[name], ADDED_RECORD)[1] < exact
    assert one_way(ROWS[name], REMOVED_RECORD)[0] > ADDED[name]
