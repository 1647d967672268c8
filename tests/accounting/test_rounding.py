"""Rounded to a grid, no clipped vector is longer than its sensitivity says, and some as long."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accountant import (
    InvalidValue,
    nearest_sensitivity,
    randomized_sensitivity,
    rounded_sum_sensitivity,
    truncated_sensitivity,
)

DIMENSIONS = st.integers(1, 300)
CELLS = st.floats(1.0, 1e4)
SEEDS = st.integers(0, 2**32 - 1)


def clipped(cells, dimension, seed):
    """A vector of norm C/g, in cells."""
    x = np.random.default_rng(seed).standard_normal(dimension)
    return x * (cells * (1 - 1e-12) / np.linalg.norm(x))


@given(CELLS, DIMENSIONS, SEEDS)
def test_a_rounded_vector_is_never_longer(cells, dimension, seed):
    x = clipped(cells, dimension, seed)
    assert np.linalg.norm(np.trunc(x)) <= truncated_sensitivity(cells, 1.0)
    assert np.linalg.norm(np.rint(x)) <= nearest_sensitivity(cells, 1.0, dimension)


@given(CELLS, DIMENSIONS, SEEDS, SEEDS)
def test_two_rounded_sums_are_never_further_apart(cells, dimension, seed, other):
    rest = clipped(37 * cells, dimension, other)
    moved = np.rint(rest + clipped(cells, dimension, seed)) - np.rint(rest)
    assert np.linalg.norm(moved) <= rounded_sum_sensitivity(cells, 1.0, dimension)


def test_each_is_attained_or_nearly():
    """So that none could be smaller: planted, half of the √d is caught here."""
    d = 400
    halves = np.full(d, 10.5000001)
    norm = float(np.linalg.norm(halves))
    assert np.linalg.norm(np.rint(halves)) > nearest_sensitivity(norm, 1.0, d) - 1e-3
    assert np.linalg.norm(np.trunc(np.full(d, 10.0))) == truncated_sensitivity(200.0, 1.0)
    below, above = np.full(d, 0.4999999), np.full(d, 10.5000001)
    moved = np.rint(above) - np.rint(below)
    apart = float(np.linalg.norm(above - below))
    assert np.linalg.norm(moved) > rounded_sum_sensitivity(apart, 1.0, d) - 1e-3


def test_randomized_rounding_is_seldom_refused():
    d, c, rng = 1000, 50.0, np.random.default_rng(3)
    x = clipped(c, d, 4)
    low = np.floor(x)
    drawn = low + (rng.random((4000, d)) < x - low)
    bound = randomized_sensitivity(c, 1.0, d)
    assert (np.linalg.norm(drawn, axis=1) > bound).mean() < math.exp(-0.5)
    assert bound < nearest_sensitivity(c, 1.0, d)


@pytest.mark.parametrize(("clip", "grid"), [(1.0, 0.1), (1.0, 1 / 3), (0.3, 0.1), (7.0, 1.4)])
def test_a_whole_number_of_cells_is_not_lost_to_rounding(clip, grid):
    assert truncated_sensitivity(clip, grid) >= round(clip / grid)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: truncated_sensitivity(1.0, 0.0), r"^grid = 0\.0: must"),
        (lambda: truncated_sensitivity(1.0, math.nan), r"^grid = nan: must"),
        (lambda: truncated_sensitivity(1.0, 2.0), r"^clip_norm = 1\.0: must be at least a cell"),
        (lambda: nearest_sensitivity(1.0, 0.1, 0), r"^dimension = 0: must"),
        (lambda: rounded_sum_sensitivity(1.0, 0.1, 5, -1.0), r"^off = -1\.0: must"),
        (lambda: randomized_sensitivity(1.0, 0.1, 5, 1.0), r"^refused = 1\.0: must"),
    ],
)
def test_what_makes_no_grid_is_refused(call, message):
    with pytest.raises(InvalidValue, match=message):
        call()
