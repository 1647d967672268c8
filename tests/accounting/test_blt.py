"""Buffered linear Toeplitz factors: their noise needs a few sums alone, and is priced exactly."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from participations import by_brute_force, toeplitz

from accountant import InvalidValue
from accountant.factorization import blt as made
from accountant.factorization.blt import blt
from accountant.factorization.buffers import Buffers
from accountant.factorization.factor import Factor, inverted
from accountant.factorization.kinds import factor_of
from accountant.factorization.participation import (
    FixedEpochs,
    MinSeparation,
    Reshuffled,
    SinglePass,
)
from accountant.factorization.pricing import CyclicPoisson
from accountant.factorization.square_roots import independent

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden" / "factors.jsonl").read_text().splitlines()
]
BLT = [row for row in ROWS if row["kind"] == "buffered_toeplitz"]
ONE = SinglePass()
SOME = Buffers(weights=(0.3, 0.2, 0.05), decays=(0.2, 0.9, 0.99))


@pytest.mark.parametrize("row", BLT, ids=lambda r: "-".join(str(r[x]) for x in ("most", "buffers")))
def test_the_optimised_buffers_are_as_good_as_the_peers(row):
    """Its three buffers for ten passes are no better than its two; ours are."""
    pattern = MinSeparation(participations=row["most"], separation=row["separation"])
    factor = blt(row["steps"], row["buffers"], pattern, row["objective"])
    ours = factor.root_mean_square_error if row["objective"] == "rms" else factor.max_error
    assert factor.bound(pattern).exact
    assert ours(pattern) <= row["value"] * (1 + 1e-6)
    assert ours(pattern) >= row["value"] * (1 - 1e-3)


def test_three_buffers_have_a_tenth_of_the_error_of_independent_noise():
    base = independent(2000).root_mean_square_error(ONE)
    for buffers, most in ((1, 0.122), (2, 0.105), (3, 0.1036)):
        factor = factor_of(f"blt:{buffers}", 2000)
        assert factor.kept == buffers
        assert factor.root_mean_square_error(ONE) / base < most
    assert factor_of("blt", 50).kept == 3


@pytest.mark.parametrize("buffers", [1, 2, 4])
def test_noise_and_error_are_those_of_the_matrices(buffers):
    factor, steps = blt(30, buffers), 30
    c, a = toeplitz(factor.first_column, steps), np.tri(steps)
    noise = np.random.default_rng(1).standard_normal((steps, 3))
    np.testing.assert_allclose(c @ factor.correlated(noise), noise, atol=1e-12)
    b = a @ np.linalg.inv(c)
    column = np.linalg.norm(c[:, 0])
    rms = np.linalg.norm(b) / math.sqrt(steps) * column
    assert factor.root_mean_square_error(ONE) == pytest.approx(rms, rel=1e-9)
    assert factor.max_error(ONE) == pytest.approx(np.linalg.norm(b[-1]) * column, rel=1e-9)


def test_noise_needs_the_buffers_alone_and_goes_on_from_them():
    """The recurrence of ``Factor``'s docstring, interrupted: to the bit what it would have been."""
    factor = Factor.of_buffers("x", 60, SOME)
    drawn = np.random.default_rng(2).standard_normal((60, 4))

    def noise(kept, ws):
        zs = []
        for w in ws:
            z = w - sum(weight * s for weight, s in zip(SOME.weights, kept, strict=True))
            kept = [decay * s + z for decay, s in zip(SOME.decays, kept, strict=True)]
            zs.append(z)
        return kept, zs

    start = [np.zeros(4)] * factor.kept
    _, whole = noise(start, drawn)
    state, before = noise(start, drawn[:25])
    _, after = noise(state, drawn[25:])
    assert np.array_equal(whole, [*before, *after])
    np.testing.assert_allclose(whole, factor.correlated(drawn), atol=1e-12)


@pytest.mark.parametrize(
    "buffers", [SOME, Buffers((0.5,), (0.0,)), Buffers((0.2, 0.3), (0.7, 0.7))]
)
def test_the_inverse_has_as_many_buffers(buffers):
    column, inverse = buffers.column(80), buffers.inverse()
    assert np.allclose(inverse.column(80), inverted(column, 80), rtol=0, atol=1e-13)
    noise = np.random.default_rng(3).standard_normal((80, 2))
    assert np.allclose(inverse.applied(buffers.applied(noise)), noise, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "pattern",
    [
        ONE,
        FixedEpochs(steps_per_epoch=3),
        MinSeparation(participations=3, separation=2),
        MinSeparation(participations=4, separation=1),
        Reshuffled(steps_per_epoch=3),
    ],
)
@pytest.mark.parametrize("objective", ["rms", "max"])
def test_entries_decrease_so_that_its_sensitivity_is_exact(pattern, objective):
    for steps, buffers in itertools.product((1, 2, 8), (1, 3)):
        factor = blt(steps, buffers, pattern, objective)
        c, (weights, decays) = factor.first_column, dataclasses.astuple(factor.buffers)
        assert (c >= 0).all()
        assert (np.diff(c) <= 0).all()
        assert all(weight > 0 for weight in weights)
        assert all(0 <= decay < 1 for decay in decays)
        found, worst = factor.bound(pattern), by_brute_force(c, steps, pattern)
        assert found.upper >= worst
        if not isinstance(pattern, Reshuffled):
            assert found.exact
            assert found.upper == pytest.approx(worst, rel=1e-9)


def test_who_prices_another_column_is_caught():
    """Else noise would be made of one matrix, and priced as another."""
    factor = Factor.of_buffers("x", 20, SOME)
    other = Buffers(weights=(0.3, 0.2, 0.06), decays=SOME.decays)
    smaller = (1.0, *[c / 2 for c in factor.coefficients[1:]])
    for wrong in ({"buffers": other}, {"coefficients": smaller}, {"inverse": (1.0, -0.5)}):
        with pytest.raises(InvalidValue) as refused:
            dataclasses.replace(factor, **wrong)
        assert "\n" not in str(refused.value)
    short = {"steps": 20, "coefficients": factor.coefficients[:9]}
    with pytest.raises(InvalidValue, match="differs from that of the coefficients"):
        dataclasses.replace(factor, **short)


def test_gradients_are_those_of_the_column():
    """Finite differences through the free parameters, of Σ pulled_t (C v)_t."""
    rng = np.random.default_rng(4)
    free, pulled, v = rng.standard_normal(6), rng.standard_normal(12), rng.standard_normal(12)
    parts, by_free = made._of_free(free)
    gradient = by_free @ made._gradient(parts, pulled, v)
    for place in range(6):
        moved = np.eye(6)[place] * 1e-6
        up, down = (pulled @ made._of_free(free + x)[0].applied(v) for x in (moved, -moved))
        assert gradient[place] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-8)


def test_more_buffers_are_never_worse():
    for pattern in (ONE, FixedEpochs(steps_per_epoch=50), FixedEpochs(steps_per_epoch=8)):
        errors = [blt(300, d, pattern).root_mean_square_error(pattern) for d in (1, 2, 3, 4)]
        assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(errors))
        assert errors[0] < independent(300).root_mean_square_error(pattern)


def test_the_same_buffers_are_found_again_of_six_digits_and_read_back():
    factor = blt(100, 3)
    again = Factor.from_json(json.loads(json.dumps(factor.to_json())))
    assert again == factor == blt(100, 3)
    for weight, decay in zip(factor.buffers.weights, factor.buffers.decays, strict=True):
        assert weight == float(f"{weight:.5e}")
        assert 1 - decay == pytest.approx(float(f"{1 - decay:.5e}"), abs=1e-15)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: blt(10, 0), "between 1 and 10"),
        (lambda: blt(10, 11), "between 1 and 10"),
        (lambda: Buffers((), ()), "as many weights as decays"),
        (lambda: Buffers((0.5,), (0.5, 0.2)), "as many weights as decays"),
        (lambda: Buffers((0.5,), (1.0,)), "between -1 and 1"),
        (lambda: Buffers((math.nan,), (0.5,)), "finite"),
        (lambda: Buffers((-0.5,), (0.5,)).inverse(), "≥ 0"),
        (
            lambda: CyclicPoisson(dataset_size=100, batch_size=1, parts=4).check(blt(20)),
            "bands = 20",
        ),
    ],
)
def test_what_is_no_buffered_factor_is_refused_in_one_line(wrong, words):
    with pytest.raises(InvalidValue, match=words) as refused:
        wrong()
    assert "\n" not in str(refused.value)
