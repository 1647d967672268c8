"""Every mechanism's Rényi curve, and the conversions, against values known to 25 digits."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from accountant import (
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    RandomizedResponse,
    Relation,
    renyi_divergence,
)
from accountant.rdp.conversion import classic, improved

GOLDEN = Path(__file__).parents[1] / "golden"


def rows(table, kind):
    lines = (GOLDEN / table).read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def is_a_real_order_above_one(order):
    """The table also has the limits at 1 and ∞, which no Rényi accountant asks for."""
    return 1 < float(order) < math.inf


def curve_rows(kind):
    found = rows("mechanisms_exact.jsonl", kind)
    return [row for row in found if is_a_real_order_above_one(row["alpha"])]


def fixed_size(row, factor):
    noise = Gaussian(noise_multiplier=row["sigma"] * factor, relation=Relation.REPLACE_ONE)
    return FixedSizeSampled(dataset_size=round(1 / row["q"]), batch_size=1, event=noise)


# Each row as an event, with its parameter times a factor, for the control.
EVENTS = {
    "rdp_laplace": lambda row, factor: Laplace(noise_multiplier=row["scale"] * factor),
    "rdp_rr_binary": lambda row, factor: RandomizedResponse(
        noise_parameter=2 * (1 - row["p"]) * factor
    ),
    "rdp_rr_kary_replace_one": lambda row, factor: RandomizedResponse(
        noise_parameter=row["noise_parameter"] * factor, categories=row["k"]
    ),
    "rdp_bounded_range": lambda row, factor: ExponentialMechanism(epsilon=row["eps"] * factor),
    "rdp_wor_gaussian_bound": fixed_size,
}
COUNTS = {
    "rdp_laplace": 63,
    "rdp_rr_binary": 71,
    "rdp_rr_kary_replace_one": 41,
    "rdp_bounded_range": 67,
    "rdp_wor_gaussian_bound": 72,
}


def truth(row):
    """The row's value; a bound above α/(2σ²), what the noise costs unsampled, gives way to it."""
    if row["kind"] != "rdp_wor_gaussian_bound":
        return Fraction(row["value"])
    unsampled = Fraction(row["alpha"]) / 2 / Fraction(row["sigma"]) ** 2
    return min(Fraction(row["value"]), unsampled)


def errors(kind, factor=1.0):
    """(value − truth) / truth at each row, of a double against 25 digits."""
    found = []
    for row in curve_rows(kind):
        value = float(renyi_divergence(EVENTS[kind](row, factor), row["alpha"]))
        found.append(float(Fraction(value) / truth(row) - 1))
    return found


@pytest.mark.parametrize("kind", EVENTS)
def test_every_golden_row_is_met_from_above(kind):
    assert len(curve_rows(kind)) == COUNTS[kind]
    assert [error for error in errors(kind) if not -1e-13 <= error <= 1e-10] == []


@pytest.mark.parametrize("kind", EVENTS)
def test_the_golden_rows_would_catch_another_parameter(kind):
    wrong = [error for error in errors(kind, 2 / 3) if not -1e-13 <= error <= 1e-10]
    assert len(wrong) == COUNTS[kind]


def test_the_rows_left_out_are_the_ends_of_the_curves():
    kinds = ("rdp_laplace", "rdp_rr_binary", "rdp_rr_kary_replace_one", "rdp_bounded_range")
    left_out = {
        row["alpha"]
        for kind in kinds
        for row in rows("mechanisms_exact.jsonl", kind)
        if not is_a_real_order_above_one(row["alpha"])
    }
    assert left_out <= {1, "inf"}


@pytest.mark.parametrize(
    ("convert", "kind"), [(classic, "conv_mironov"), (improved, "conv_improved")]
)
def test_a_conversion_gives_the_known_figure(convert, kind):
    found = rows("mechanisms_exact.jsonl", kind)
    assert len(found) == {"conv_mironov": 114, "conv_improved": 121}[kind]
    for row in found:
        epsilon = float(convert(np.array([row["alpha"]]), np.array([row["rdp"]]), row["delta"])[0])
        assert epsilon == pytest.approx(max(float(row["value"]), 0.0), rel=1e-14, abs=0)


def test_peers_figures_for_a_sample_of_fixed_size_agree():
    for row in rows("peer_values.jsonl", "rdp_wor"):
        noise = Gaussian(noise_multiplier=row["sigma"], relation=Relation.REPLACE_ONE)
        event = FixedSizeSampled(dataset_size=round(1 / row["q"]), batch_size=1, event=noise)
        value = row["steps"] * float(renyi_divergence(event, row["order"]))
        assert value == pytest.approx(row["value"], abs=1e-5)


def test_peers_figures_for_answers_among_several_agree():
    """Its other neighbours replace a record by none at all, which is not a relation here."""
    found = [
        row
        for row in rows("peer_values.jsonl", "rdp")
        if row.get("neighbour") == "replace_one" and is_a_real_order_above_one(row["order"])
    ]
    assert len(found) == 15
    for row in found:
        event = RandomizedResponse(
            noise_parameter=row["noise_parameter"], categories=row["num_buckets"]
        )
        assert float(renyi_divergence(event, row["order"])) == pytest.approx(row["value"], rel=1e-4)


def test_the_exponential_mechanism_costs_less_than_a_peer_says():
    """At order 1000 of ε = 1 the peer gives ε itself; the largest divergence is 0.99254."""
    (row,) = (
        row
        for row in rows("peer_values.jsonl", "rdp")
        if row["mechanism"] == "exponential mechanism eps=1" and row["order"] == 1000
    )
    value = float(renyi_divergence(ExponentialMechanism(epsilon=1.0), row["order"]))
    assert value == pytest.approx(0.99254, abs=5e-6)
    assert value < row["value"]
