"""Whole runs whose ε is known: from the papers' settings, to the truth, and from Opacus."""

import json
from pathlib import Path

import numpy as np
import pytest
from opacus.accountants.analysis.rdp import compute_rdp

from accountant import (
    COMMON_ORDERS,
    Gaussian,
    PoissonSampled,
    RdpAccountant,
    dpsgd_event,
    dpsgd_steps,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "dpsgd_epsilon.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def composed(*parts):
    accountant = RdpAccountant()
    for rate, noise, steps in parts:
        step = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
        accountant.compose(step, steps)
    return accountant


def trained(n, batch, noise, epochs, microbatch_size=1):
    step = dpsgd_event(
        dataset_size=n, batch_size=batch, noise_multiplier=noise, microbatch_size=microbatch_size
    )
    steps = dpsgd_steps(dataset_size=n, batch_size=batch, epochs=epochs)
    return RdpAccountant().compose(step, steps)


@pytest.mark.parametrize(
    ("run", "order", "classic", "improved"),
    [
        ((60_000, 250, 1.3, 15), 17, 1.1799007, 0.9422002),
        ((60_000, 250, 1.3, 3), 18, 0.7903529, 0.5631726),
        ((60_000, 50, 1.2, 10), 19, 0.7206178, 0.5029706),
        ((60_000, 50, 1.2, 10, 5), 4.5, 3.8026592, 3.1216084),
    ],
)
def test_the_customary_runs_cost_what_they_are_known_to(run, order, classic, improved):
    accountant = trained(*run)
    for method, known in (("rdp-classic", classic), ("rdp", improved)):
        bound = accountant.epsilon(1e-5, method)
        assert bound.upper == pytest.approx(known, abs=5.01e-8)
        assert bound.order == order
        assert not bound.beyond_grid


def test_the_first_run_is_known_to_thirteen_digits():
    bound = trained(60_000, 250, 1.3, 15).epsilon(1e-5, "rdp-classic")
    assert bound.upper == pytest.approx(1.1799006739827, rel=1e-12)


def test_microbatches_cost_what_half_the_noise_costs():
    assert trained(60_000, 50, 1.2, 10, microbatch_size=5).epsilon(1e-5) == trained(
        60_000, 50, 0.6, 10
    ).epsilon(1e-5)


def test_little_noise_sits_at_the_edge_of_the_common_grid():
    accountant = trained(60_000, 250, 0.1, 2)
    edge = accountant.epsilon(1e-5, search=False)
    assert edge.upper == pytest.approx(2321.9371923, abs=5.01e-8)
    assert (edge.order, edge.beyond_grid) == (1.1, False)
    classic = accountant.epsilon(1e-5, "rdp-classic", search=False)
    assert classic.upper == pytest.approx(2325.2881894, abs=5.01e-8)


def test_little_noise_costs_a_quarter_of_that_beyond_the_grid():
    bound = trained(60_000, 250, 0.1, 2).epsilon(1e-5)
    assert 479.0972228429864 < bound.upper < 549  # the left figure is the exact ε
    assert bound.beyond_grid
    assert 1 < bound.order < 1.1


def test_a_run_of_opacus_own_tests_agrees():
    """Opacus's curve is 1.1e-11 low at order 3.9, hence the tolerance."""
    bound = composed((0.04, 1.5, 2250)).epsilon(1e-5, search=False)
    assert bound.upper == pytest.approx(7.32911117143, rel=1e-11)


def test_the_moments_accountant_run_agrees():
    """q = 0.01, σ = 4, 10⁴ steps [Abadi et al. 2016, Sec. 3.2], which gives ε ≈ 1.26."""
    assert composed((0.01, 4.0, 10_000)).epsilon(1e-5, "rdp-classic").upper == pytest.approx(
        1.2586, abs=5e-5
    )


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_no_bound_lies_below_the_truth(row):
    accountant = composed((row["q"], row["sigma"], row["steps"]))
    for method in ("rdp", "rdp-classic"):
        for search in (True, False):
            bound = accountant.epsilon(row["delta"], method, search=search)
            assert bound.upper >= float(row["eps_exact"])


@pytest.mark.parametrize(
    ("parts", "delta", "exact"),
    [
        ([(0.0001, 0.4, 40_000), (0.1, 2.0, 100)], 1e-5, 5.497261690378081),
        ([(250 / 60_000, 1.3, 1800), (500 / 60_000, 1.3, 900)], 1e-5, 1.0793153310864392),
        ([(0.01, 2.0, 500), (0.01, 1.5, 500), (0.01, 1.0, 500)], 1e-6, 1.8018507900681953),
        ([(0.01, 1.0, 1000), (1.0, 20.0, 5)], 1e-5, 1.8802445779008548),
    ],
)
def test_unequal_steps_cost_no_less_than_the_truth_and_not_much_more(parts, delta, exact):
    assert exact <= composed(*parts).epsilon(delta).upper <= 1.5 * exact


@pytest.mark.parametrize(
    ("rate", "noise", "steps"),
    [
        (250 / 60_000, 1.3, 3600),
        (50 / 60_000, 0.6, 12_000),
        (250 / 60_000, 0.1, 480),
        (0.01, 4.0, 10_000),
        (0.04, 1.5, 2250),
        (0.5, 1.0, 100),
        (1.0, 5.0, 100),
    ],
)
def test_the_curve_is_opacus_curve(rate, noise, steps):
    theirs = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=COMMON_ORDERS.tolist())
    assert composed((rate, noise, steps)).rdp() == pytest.approx(np.array(theirs), rel=1e-6)
