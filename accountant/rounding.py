"""Sensitivity on a grid: what rounding clipped vectors to whole cells does to their norm.

Each answer is in cells of the grid, as ``DiscreteGaussian.sensitivity`` takes it: the square of
the norm of a vector of integers is an integer, so it is cut to one. That holds of a record added
or removed; where one is replaced, or a microbatch is averaged before the clip, take twice.
"""

from __future__ import annotations

import math

from accountant.errors import check

_UP = 1 + 2.0**-50  # above what the few roundings here may take


def truncated_sensitivity(clip_norm: float, grid: float) -> float:
    """L2 sensitivity, in cells, of a sum of vectors clipped, then rounded toward zero.

    Each coordinate |⌊|x_i|/g⌋| ≤ |x_i|/g, so no norm grows: ‖k‖ ≤ C/g, whatever the dimension.
    The sum of whole numbers is exact in any order, as that of floats is not.

    >>> truncated_sensitivity(1.0, 2**-10)
    1024.0
    """
    _check(clip_norm, grid)
    return _whole(clip_norm / grid)


def nearest_sensitivity(clip_norm: float, grid: float, dimension: int) -> float:
    """L2 sensitivity, in cells, of a sum of vectors clipped, then rounded to the nearest cell.

    No coordinate moves by more than half a cell, so none of the vectors moves by more than √d/2
    of them: ‖k‖ ≤ C/g + √d/2 by the triangle inequality.

    >>> round(nearest_sensitivity(1.0, 2**-10, 10_000) ** 2)
    1153476
    """
    _check(clip_norm, grid, dimension)
    return _whole(clip_norm / grid + math.sqrt(dimension) / 2)


def rounded_sum_sensitivity(
    clip_norm: float, grid: float, dimension: int, off: float = 0.0
) -> float:
    """L2 sensitivity, in cells, of a sum of clipped vectors that is rounded once, at the end.

    Both neighbours' sums move by up to √d/2 cells, so their difference by √d. ``off`` bounds the
    L2 error of either sum as computed: floats added in another order give another sum, and an
    attacker may choose the order [Casacuberta et al. 2022], so it is the caller's to bound.

    >>> round(rounded_sum_sensitivity(1.0, 2**-10, 10_000) ** 2)
    1263376
    """
    _check(clip_norm, grid, dimension)
    check(off >= 0, "off", off, "must be ≥ 0")
    return _whole((clip_norm + 2 * off) / grid + math.sqrt(dimension))


def randomized_sensitivity(
    clip_norm: float, grid: float, dimension: int, refused: float = math.exp(-0.5)
) -> float:
    """L2 sensitivity, in cells, of conditionally randomized rounding [Kairouz, Liu, Steinke 2021].

    Each coordinate goes up or down so that its mean stays; a vector longer than this is rounded
    again, until one is not. That check alone makes the bound hold, record by record; the formula
    (Theorem 1 there) only sees to it that at most a fraction ``refused`` of the tries are.

    >>> round(randomized_sensitivity(1.0, 2**-10, 10_000) ** 2)
    1052150
    """
    _check(clip_norm, grid, dimension)
    check(0 < refused < 1, "refused", refused, "must lie strictly between 0 and 1")
    c, d = clip_norm / grid, dimension
    usual = c * c + d / 4 + math.sqrt(-2 * math.log(refused)) * (c + math.sqrt(d) / 2)
    return _whole(math.sqrt(min(usual, (c + math.sqrt(d)) ** 2)))


def _check(clip_norm: float, grid: float, dimension: int = 1) -> None:
    check(0 < grid < math.inf, "grid", grid, "must be a number > 0")
    check(grid <= clip_norm < math.inf, "clip_norm", clip_norm, f"must be at least a cell, {grid}")
    whole = dimension >= 1 and dimension % 1 == 0
    check(whole, "dimension", dimension, "must be a whole number")


def _whole(norm: float) -> float:
    """The largest norm of a vector of integers within that, rounded up."""
    square = norm * norm * _UP
    root = math.sqrt(math.floor(square) if square < 2**50 else square)
    return root if root.is_integer() else math.nextafter(root, math.inf)
