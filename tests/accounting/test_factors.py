"""Factors of prefix sums: their noise, their error, and what a peer finds for the same."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from accountant import InvalidValue
from accountant.factorization.bandmf import bandinvmf, bandmf
from accountant.factorization.factor import Factor, inverted
from accountant.factorization.least import Least
from accountant.factorization.participation import (
    FixedEpochs,
    MinSeparation,
    Reshuffled,
    SinglePass,
)
from accountant.factorization.square_roots import banded_inverse_sqrt, banded_sqrt, independent

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden" / "factors.jsonl").read_text().splitlines()
]
KINDS = [banded_sqrt, banded_inverse_sqrt, bandmf, bandinvmf]
ONE = SinglePass()


def of(kind):
    return [row for row in ROWS if row["kind"] == kind]


def matrix(column, steps):
    whole = np.zeros((steps, steps))
    for j, value in enumerate(column):
        whole += value * np.eye(steps, k=-j)
    return whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bands", [1, 2, 5])
def test_noise_and_error_are_those_of_the_matrices(kind, bands):
    """C times what training adds is the independent noise, and the error is ‖A C⁻¹‖."""
    factor, steps = kind(30, bands), 30
    c, a = matrix(factor.coefficients, steps), np.tri(steps)
    noise = np.random.default_rng(1).standard_normal((steps, 3))
    np.testing.assert_allclose(c @ factor.correlated(noise), noise, atol=1e-12)
    b = a @ np.linalg.inv(c)
    column = np.linalg.norm(c[:, 0])
    rms = np.linalg.norm(b) / math.sqrt(steps) * column
    assert factor.root_mean_square_error(ONE) == pytest.approx(rms, rel=1e-9)
    assert factor.max_error(ONE) == pytest.approx(np.linalg.norm(b[-1]) * column, rel=1e-9)
    assert factor.kept == bands - 1


@pytest.mark.parametrize("kind", KINDS)
def test_noise_needs_only_the_vectors_that_are_kept(kind):
    """The recurrence of the docstring, written out."""
    factor = kind(40, 4)
    w = np.random.default_rng(2).standard_normal(40)
    kept: list[float] = []
    for t, drawn in enumerate(w):
        if factor.inverse:
            z = drawn + sum(p * old for p, old in zip(factor.inverse[1:], kept[::-1], strict=False))
        else:
            c = factor.coefficients[1:]
            z = drawn - sum(p * old for p, old in zip(c, kept[::-1], strict=False))
        assert z == pytest.approx(factor.correlated(w)[t], abs=1e-12)
        kept = [*kept, float(drawn if factor.inverse else z)][-factor.kept :]


@pytest.mark.parametrize(
    "row", of("banded_toeplitz"), ids=lambda r: f"{r['objective']}-{r['bands']}"
)
def test_the_optimised_factor_is_as_good_as_the_peers(row):
    factor = bandmf(row["steps"], row["bands"], objective=row["objective"])
    ours = factor.root_mean_square_error if row["objective"] == "rms" else factor.max_error
    assert ours(ONE) <= row["value"] * (1 + 1e-4)
    assert ours(ONE) >= row["value"] * (1 - 1e-3)


@pytest.mark.parametrize("row", of("minsep"), ids=lambda r: f"{r['bands']}-{r['separation']}")
def test_sensitivity_over_separated_participations_is_the_peers(row):
    pattern = MinSeparation(participations=row["participations"], separation=row["separation"])
    ours = banded_sqrt(row["steps"], row["bands"]).sensitivity(pattern)
    assert ours == pytest.approx(row["value"], rel=1e-9)


@pytest.mark.parametrize("row", of("fixed_epochs"), ids=lambda r: f"{r['bands']}-{r['epochs']}")
def test_sensitivity_over_epochs_is_the_peers(row):
    pattern = FixedEpochs(steps_per_epoch=row["steps"] // row["epochs"])
    ours = banded_sqrt(row["steps"], row["bands"]).sensitivity(pattern)
    assert ours == pytest.approx(row["value"], rel=1e-9)


@pytest.mark.parametrize(("kind", "kept", "most"), [(bandmf, 15, 0.3), (bandinvmf, 1, 0.2)])
def test_unsampled_prefix_sums_have_well_below_six_tenths_of_the_error(kind, kept, most):
    steps, epochs = 2000, FixedEpochs(steps_per_epoch=200)
    for pattern in (ONE, epochs, Reshuffled(steps_per_epoch=2000)):
        factor = kind(steps, kept + 1, pattern)
        base = independent(steps).root_mean_square_error(pattern)
        assert factor.kept == kept
        assert factor.root_mean_square_error(pattern) / base < most


def test_more_bands_are_never_worse_nor_is_the_optimum_than_the_closed_form():
    for pattern in (ONE, FixedEpochs(steps_per_epoch=50), FixedEpochs(steps_per_epoch=8)):
        for optimised, closed in ((bandmf, banded_sqrt), (bandinvmf, banded_inverse_sqrt)):
            errors = []
            for bands in (1, 2, 4, 8, 16):
                best = optimised(300, bands, pattern).root_mean_square_error(pattern)
                assert best <= closed(300, bands).root_mean_square_error(pattern) * (1 + 1e-6)
                errors.append(best)
            assert all(b <= a * 1.01 for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("pattern", [ONE, FixedEpochs(steps_per_epoch=4)])
def test_gradients_are_those_of_the_loss(pattern):
    """Finite differences of error and sensitivity by their columns."""
    least, column = Least.of(12, pattern, "rms"), np.array([1.0, 0.6, 0.4, 0.3, 0.2, 0.1])
    padded = np.concatenate([column, np.zeros(6)])
    for part, at in ((least.sensitivity, column), (least.error, padded)):
        _, gradient = part(at)
        for place in range(len(at)):
            moved = np.eye(len(at))[place] * 1e-6
            slope = (part(at + moved)[0] - part(at - moved)[0]) / 2e-6
            assert gradient[place] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_the_same_factor_is_found_again_and_read_back():
    for factor in (bandmf(100, 8), bandinvmf(100, 8), independent(7)):
        again = Factor.from_json(json.loads(json.dumps(factor.to_json())))
        assert again == factor
        assert again.coefficients == factor.coefficients
    assert bandmf(100, 8) == bandmf(100, 8)


def test_what_is_no_factor_is_refused_in_one_line():
    good = banded_inverse_sqrt(10, 3)
    for wrong in (
        lambda: bandmf(10, 11),
        lambda: bandmf(10, 0),
        lambda: Factor(name="x", steps=2, coefficients=(2.0, 1.0)),
        lambda: Factor(name="x", steps=1, coefficients=(1.0, 1.0)),
        lambda: Factor(name="x", steps=3, coefficients=(1.0, math.nan)),
        lambda: dataclasses.replace(good, inverse=(1.0, -0.6)),
        lambda: dataclasses.replace(good, coefficients=good.coefficients[:5]),
        lambda: bandmf(10, 2, objective="mean"),
        lambda: MinSeparation(participations=0, separation=1),
        lambda: FixedEpochs(steps_per_epoch=0),
    ):
        with pytest.raises(InvalidValue) as refused:
            wrong()
        assert "\n" not in str(refused.value)


def test_an_inverse_whose_column_is_anothers_is_caught():
    """Else noise would be made of one matrix, and priced as another."""
    factor = bandinvmf(50, 3)
    smaller = tuple(inverted((1.0, -0.1, 0.0), 50).tolist())
    with pytest.raises(InvalidValue, match="differs from that of the coefficients"):
        dataclasses.replace(factor, coefficients=smaller)
