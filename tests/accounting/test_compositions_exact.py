"""ε of many steps and of unequal ones: the interval holds the value found by other means."""

import json
from pathlib import Path

import pytest

from accountant import Gaussian, PldAccountant, PoissonSampled

GOLDEN = Path(__file__).parents[1] / "golden" / "composition_exact.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
EQUAL = [row for row in ROWS if row["kind"] == "eps"]
UNEQUAL = [
    row for row in ROWS if row["kind"] == "eps_hetero" and not isinstance(row["parts"][0], str)
]
NOISE = [row for row in ROWS if row["kind"] == "calibrate_sigma"]


def bounds(parts, delta):
    accountant = PldAccountant()
    for rate, noise, steps in parts:
        step = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
        accountant.compose(step, steps)
    return accountant.epsilon(delta)


def check_holds(row, parts):
    """``spread`` is how far apart the two contours behind the value came out."""
    found = bounds(parts, row["delta"])
    slack = 2 * row["spread"] + 1e-14 * row["exact"]
    assert found.lower - slack <= row["exact"] <= found.upper + slack
    assert found.upper - found.lower <= max(1e-4 * max(1.0, found.upper), 1e-3 * found.upper)


def test_the_rows_are_all_there():
    assert [len(kind) for kind in (EQUAL, UNEQUAL, NOISE)] == [29, 4, 6]


@pytest.mark.parametrize("row", EQUAL, ids=[row["key"] for row in EQUAL])
def test_equal_steps_cost_the_known_epsilon(row):
    check_holds(row, [(row["q"], row["sigma"], row["steps"])])


@pytest.mark.parametrize("row", UNEQUAL, ids=[row["key"] for row in UNEQUAL])
def test_unequal_steps_cost_the_known_epsilon(row):
    check_holds(row, row["parts"])


@pytest.mark.parametrize("row", NOISE, ids=[row["key"] for row in NOISE])
def test_the_known_noise_meets_its_epsilon(row):
    found = bounds([(row["q"], row["exact"], row["steps"])], row["delta"])
    assert found.lower <= row["eps"] * (1 + 1e-12)
    assert found.upper >= row["eps"] * (1 - 1e-12)


def test_one_step_more_than_the_known_number_passes_the_target():
    (row,) = (row for row in ROWS if row["kind"] == "calibrate_steps")
    affordable = bounds([(row["q"], row["sigma"], row["exact"])], row["delta"])
    one_more = bounds([(row["q"], row["sigma"], row["exact"] + 1)], row["delta"])
    assert affordable.upper <= row["eps"] < one_more.lower
    assert affordable.lower <= row["e155"] <= affordable.upper
    assert one_more.lower <= row["e156"] <= one_more.upper
