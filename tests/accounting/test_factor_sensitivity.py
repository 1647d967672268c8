"""How far one record moves C x: against every pattern and sign of small cases, never less."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from participations import by_brute_force, patterns, toeplitz

from accountant.factorization.factor import Factor
from accountant.factorization.participation import (
    FixedEpochs,
    MinSeparation,
    Reshuffled,
    SinglePass,
)
from accountant.factorization.sensitivity import sensitivity
from accountant.factorization.square_roots import banded_sqrt, independent

STEPS = st.integers(2, 8)
ENTRIES = st.lists(st.floats(-1.5, 1.5).map(lambda x: round(x, 3)), min_size=0, max_size=6)
PATTERNS = st.one_of(
    st.just(SinglePass()),
    st.builds(FixedEpochs, steps_per_epoch=st.integers(1, 5)),
    st.builds(Reshuffled, steps_per_epoch=st.integers(1, 5)),
    st.builds(MinSeparation, participations=st.integers(1, 4), separation=st.integers(1, 5)),
)


def by_vectors(c, steps, participation, rng):
    """What vectors of norm 1 reach in three dimensions, each turned to its best in turn."""
    matrix, worst = toeplitz(c, steps), 0.0
    for some in patterns(participation, steps):
        columns = matrix[:, list(some)]
        gram = columns.T @ columns
        x = rng.standard_normal((len(some), 3))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        for place in [*range(len(some))] * 6:
            pull = gram[place] @ x - gram[place, place] * x[place]
            if np.linalg.norm(pull) > 1e-12:
                x[place] = pull / np.linalg.norm(pull)
        worst = max(worst, math.sqrt(max(float(np.sum(gram * (x @ x.T))), 0.0)))
    return worst


@given(STEPS, ENTRIES, PATTERNS, st.integers(0, 2**32 - 1))
@example(8, [0.9, -0.7, 0.8, -0.6, 0.5], MinSeparation(participations=4, separation=1), 0)
@example(8, [-1.0, -1.0, -1.0, -1.0], FixedEpochs(steps_per_epoch=1), 1)
@example(7, [-0.5], Reshuffled(steps_per_epoch=3), 2)
@example(8, [0.5, 0.375, 0.3, 0.2], Reshuffled(steps_per_epoch=2), 3)
def test_no_record_moves_further_and_some_record_as_far_as_said_to_be_exact(
    steps, entries, participation, seed
):
    c = np.array([1.0, *entries])
    found = sensitivity(c, steps, participation)
    worst = by_brute_force(c, steps, participation)
    assert worst <= found.upper
    few = len(patterns(participation, steps)) <= 60
    if few:
        assert by_vectors(c, steps, participation, np.random.default_rng(seed)) <= found.upper
    if found.exact:
        assert found.upper == pytest.approx(worst, rel=1e-9)


@given(STEPS, st.lists(st.floats(0, 1), max_size=7), PATTERNS)
def test_entries_that_decrease_are_priced_exactly_but_for_fresh_shuffles(steps, entries, pattern):
    c = np.array([1.0, *sorted((round(x, 3) for x in entries), reverse=True)])
    found = sensitivity(c, steps, pattern)
    if not isinstance(pattern, Reshuffled):
        assert found.exact
        assert found.upper == pytest.approx(by_brute_force(c, steps, pattern), rel=1e-9)


def test_bounds_that_are_not_exact_are_seldom_far():
    rng, apart = np.random.default_rng(5), []
    for _ in range(60):
        c = np.concatenate([[1.0], rng.uniform(-1, 1, 5)])
        pattern = MinSeparation(participations=3, separation=2)
        apart.append(sensitivity(c, 8, pattern).upper / by_brute_force(c, 8, pattern))
    assert min(apart) >= 1
    assert np.median(apart) < 1.1


# Planted: each is what somebody forgets.
PLANTED = {
    "that a record joins every epoch": (FixedEpochs(steps_per_epoch=4), lambda c, k: _norm(c)),
    "that overlapping columns add up": (
        FixedEpochs(steps_per_epoch=2),
        lambda c, k: math.sqrt(k) * _norm(c),
    ),
    "that a fresh shuffle brings two steps together": (
        Reshuffled(steps_per_epoch=4),
        lambda c, k: math.sqrt(k) * _norm(c),
    ),
    "that noise is scaled to columns, not to their first entry": (SinglePass(), lambda c, k: 1.0),
    "that a record may contribute against itself": (
        MinSeparation(participations=2, separation=1),
        lambda c, k: float(np.linalg.norm(toeplitz(c, 8)[:, [0, 1]].sum(axis=1))),
    ),
}


def _norm(c):
    return float(np.linalg.norm(c))


@pytest.mark.parametrize("forgotten", PLANTED)
def test_who_forgets_is_caught(forgotten):
    """The record that moves C x further than a planted formula says."""
    pattern, formula = PLANTED[forgotten]
    c = np.array([1.0, 0.6, 0.5, 0.3])
    if "against itself" in forgotten:
        c[1:] *= -1
    worst = by_brute_force(c, 8, pattern)
    assert formula(c, pattern.most(8)) < worst * (1 - 1e-3)
    assert sensitivity(c, 8, pattern).upper >= worst


@pytest.mark.parametrize("epochs", [1, 2, 4, 9, 10])
def test_independent_noise_pays_the_root_of_its_epochs(epochs):
    one = independent(epochs * 20)
    for pattern in (FixedEpochs(steps_per_epoch=20), Reshuffled(steps_per_epoch=20)):
        found = one.bound(pattern)
        assert found.exact
        assert found.upper == pytest.approx(math.sqrt(epochs), rel=1e-9)
        assert found.upper**2 >= epochs


def test_half_or_twice_the_participations_are_told_apart():
    factor = banded_sqrt(400, 8)
    full = factor.sensitivity(FixedEpochs(steps_per_epoch=100))
    halved = factor.sensitivity(FixedEpochs(steps_per_epoch=200))
    assert full**2 == pytest.approx(2 * halved**2, rel=1e-9)
    assert full == pytest.approx(2 * factor.column_norm, rel=1e-9)


def test_a_last_epoch_that_is_cut_short_counts_for_those_it_reaches():
    factor = Factor(name="x", steps=5, coefficients=(1.0, 0.5))
    found = factor.bound(FixedEpochs(steps_per_epoch=2))  # steps 0, 2, 4: the last column is cut
    assert found.upper**2 == pytest.approx(1.25 + 1.25 + 1.0)


def test_more_participations_never_cost_less():
    factor = banded_sqrt(60, 20)
    costs = [
        factor.sensitivity(MinSeparation(participations=k, separation=6)) for k in range(1, 12)
    ]
    assert costs == sorted(costs)
    apart = [
        factor.sensitivity(MinSeparation(participations=3, separation=b)) for b in range(1, 30)
    ]
    assert apart == sorted(apart, reverse=True)
    fixed = factor.sensitivity(FixedEpochs(steps_per_epoch=6))
    assert fixed <= factor.sensitivity(Reshuffled(steps_per_epoch=6))


def test_one_entry_is_not_rounded_below_the_truth():
    """0.7 × 3 in doubles is below thrice the double 0.7."""
    found = sensitivity(np.array([0.7]), 9, FixedEpochs(steps_per_epoch=1)).upper
    assert Fraction(0.7 * 3) < 3 * Fraction(0.7) <= Fraction(found)


def test_fresh_shuffles_of_many_steps_need_no_matrix_of_them_all():
    factor, pattern = banded_sqrt(10_000, 60), Reshuffled(steps_per_epoch=50)
    tracemalloc.start()
    found = factor.sensitivity(pattern)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # of 800e6 for 10,000 × 10,000
    assert found > factor.sensitivity(FixedEpochs(steps_per_epoch=50))
