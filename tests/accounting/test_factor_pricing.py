"""What correlated noise is charged: never below the peers' truth, nor below any of its parts."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from accountant import InvalidValue, PldAccountant, Relation, Sampler, UnsupportedEvent
from accountant import dpsgd_events as dpsgd
from accountant.factorization.bandmf import bandinvmf, bandmf
from accountant.factorization.participation import FixedEpochs, SinglePass
from accountant.factorization.pricing import CyclicPoisson, Unsampled
from accountant.factorization.square_roots import independent
from accountant.gaussian import gaussian_epsilon

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden" / "factors.jsonl").read_text().splitlines()
]
CYCLIC = [row for row in ROWS if row["kind"] == "cyclic_poisson"]


def epsilon(events, delta=1e-5, width=1e-4):
    return PldAccountant(width=width).compose_all(events).epsilon(delta)


@pytest.mark.parametrize("row", CYCLIC, ids=lambda row: f"{row['bands']}-{row['sigma']}")
def test_cyclic_poisson_sampling_costs_what_the_peers_say(row):
    """Theirs is an upper bound of one grid, 1e-5 above the truth at most, and a Rényi one."""
    scheme = CyclicPoisson(dataset_size=row["n"], batch_size=row["batch"], parts=row["bands"])
    began = time.perf_counter()
    found = epsilon(scheme.events(row["sigma"], row["steps"]), row["delta"], width=1e-6)
    assert time.perf_counter() - began < 3
    assert found.upper - found.lower <= 1e-3
    assert found.lower <= row["value"] < row["rdp"]
    assert found.upper <= row["value"] * (1 + 1e-6)  # as the truth is not above theirs
    assert found.lower >= row["value"] * (1 - 1e-5)
    other = CyclicPoisson(dataset_size=row["n"], batch_size=row["batch"] // 2, parts=row["bands"])
    half = epsilon(other.events(row["sigma"], row["steps"]), row["delta"])
    assert half.upper < row["value"] * (1 - 1e-5)  # planted: half the rate is told apart


def test_one_part_is_dp_sgd_itself():
    scheme = CyclicPoisson(dataset_size=1000, batch_size=20, parts=1)
    events = dpsgd(dataset_size=1000, batch_size=20, noise_multiplier=1.5, steps=77)
    assert scheme.events(1.5, 77) == events
    replaced = CyclicPoisson(
        dataset_size=1000, batch_size=20, parts=1, relation=Relation.REPLACE_ONE
    )
    assert replaced.events(1.5, 77) == dpsgd(
        dataset_size=1000,
        batch_size=20,
        noise_multiplier=1.5,
        steps=77,
        relation=Relation.REPLACE_ONE,
    )


def test_independent_noise_over_fixed_epochs_costs_what_shuffled_epochs_do():
    """k releases of σ are one of σ/√k: the factor of one band is the pass that exists already."""
    steps, epochs = 40, FixedEpochs(steps_per_epoch=10)
    sens = independent(steps).sensitivity(epochs)
    ours = epsilon(Unsampled(participation=epochs).events(3.0 / sens, steps), width=1e-6)
    theirs = epsilon(
        dpsgd(
            dataset_size=100,
            batch_size=10,
            noise_multiplier=3.0,
            steps=steps,
            sampler=Sampler.SHUFFLED,
        ),
        width=1e-6,
    )
    assert ours.upper == pytest.approx(theirs.upper, rel=1e-5)


@pytest.mark.parametrize("relation", [Relation.REPLACE_ONE, Relation.ADD_OR_REMOVE_ONE])
@pytest.mark.parametrize("kind", [bandmf, bandinvmf])
def test_an_unsampled_run_costs_the_distance_between_its_two_worlds(kind, relation):
    """ε of N(0, s²I) against N(Δ, s²I), Δ what the worst record moves, by the closed form."""
    steps, noise, epochs = 24, 2.5, FixedEpochs(steps_per_epoch=6)
    factor = kind(steps, 4, epochs)
    deviation = noise * factor.sensitivity(epochs)  # what training draws, at clip norm 1
    column = np.zeros(steps)
    column[: factor.bands] = factor.coefficients
    c = np.array([np.concatenate([np.zeros(j), column[: steps - j]]) for j in range(steps)]).T
    far = 2.0 if relation is Relation.REPLACE_ONE else 1.0
    moved = far * np.linalg.norm(c[:, ::6].sum(axis=1)) / deviation
    truth, error = gaussian_epsilon(float(moved), 1e-5)
    found = epsilon(
        Unsampled(participation=epochs, relation=relation).events(noise, steps), width=1e-7
    )
    assert found.upper >= truth - error
    assert found.upper == pytest.approx(truth, rel=1e-5)
    # planted: a record of one epoch, or one replaced as if it were only added
    assert found.upper > 1.3 * gaussian_epsilon(float(moved) / 2, 1e-5)[0]


@pytest.mark.parametrize("steps", [1, 15, 16, 17, 31, 32, 100])
def test_a_cycle_that_has_begun_is_paid_for_and_each_only_once(steps):
    scheme = CyclicPoisson(dataset_size=10_000, batch_size=100, parts=16)
    charged = [scheme.charge(t, 1.0) for t in range(steps)]
    paid = [event for event in charged if event.to_json()["type"] != "no_cost"]
    [(event, count)] = scheme.events(1.0, steps)
    assert paid == [event] * count
    assert count == math.ceil(steps / 16)
    assert scheme.sampling_rate == 0.16


def test_an_unsampled_run_is_paid_at_its_first_step():
    scheme = Unsampled(participation=SinglePass())
    charged = [scheme.charge(t, 3.0) for t in range(5)]
    assert [(charged[0], 1)] == scheme.events(3.0, 5)
    assert {event.to_json()["type"] for event in charged[1:]} == {"no_cost"}
    assert {event.relation for event in charged} == {Relation.REPLACE_ONE}
    assert scheme.events(3.0, 0) == []


def test_the_mixture_of_a_cycle_is_no_closer_than_it_is_charged():
    """Two blocks sampled to the end: δ of C G + w with and without a record, by integration.

    Its likelihood ratio is that of two numbers, what each block shows along its own column.
    """
    scheme = CyclicPoisson(dataset_size=100, batch_size=15, parts=2)
    factor, sigma, q = bandmf(4, 2), 0.8, 0.3
    far = float(np.linalg.norm(factor.coefficients))
    u = np.linspace(-9, 10, 1501)
    density = np.exp(-u * u / 2) / math.sqrt(2 * math.pi) * (u[1] - u[0])

    def truth(deviation, eps):
        shift = far / deviation
        one = (1 - q) + q * np.exp(u * shift - shift * shift / 2)
        ratio, weight = np.outer(one, one), np.outer(density, density)
        added = np.sum(weight * np.maximum(ratio - math.exp(eps), 0))
        return float(max(added, np.sum(weight * np.maximum(1 - math.exp(eps) * ratio, 0))))

    for eps in (0.3, 1.0, 2.0):
        bounds = PldAccountant().compose_all(scheme.events(sigma, 4)).delta(eps)
        honest = truth(sigma * factor.column_norm, eps)
        assert bounds.lower * 0.999 <= honest <= bounds.upper * 1.001
        assert truth(sigma, eps) > bounds.upper * 1.05  # planted: noise scaled to c_0 alone


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: CyclicPoisson(dataset_size=100, batch_size=10, parts=11), "at most 10 parts"),
        (lambda: CyclicPoisson(dataset_size=100, batch_size=0, parts=1), "at least 1"),
        (lambda: CyclicPoisson(dataset_size=100, batch_size=1, parts=0), "whole number"),
        (
            lambda: CyclicPoisson(dataset_size=100, batch_size=1, parts=4).check(bandmf(20, 5)),
            "take 5 parts",
        ),
        (
            lambda: CyclicPoisson(dataset_size=100, batch_size=1, parts=4).check(bandinvmf(20, 2)),
            "bands = 20",
        ),
    ],
)
def test_what_cannot_be_amplified_is_refused_in_one_line(wrong, words):
    with pytest.raises(InvalidValue, match=words) as refused:
        wrong()
    assert "\n" not in str(refused.value)


def test_label_privacy_has_no_analysis_here():
    with pytest.raises(UnsupportedEvent, match="label_change"):
        Unsampled(participation=SinglePass(), relation=Relation.LABEL_CHANGE)
