"""L2 sensitivity of C x: how far one record moves it, over all the steps it may contribute to.

A record adds Σ_{i ∈ π} C[:, i] ⊗ x_i with vectors of norm ≤ 1, at the steps π that its
participation pattern allows. The square of that norm is Σ ⟨x_i, x_j⟩ (CᵀC)_ij over π × π, at
most Σ |(CᵀC)_ij|, and equal to it where x_i = ± x_0 can give every term its sign: where no entry
of CᵀC is negative, or where the steps of π that interact form a chain. Contributions chosen
after seeing earlier outputs move Gaussian noise no further [Denisov et al. 2022, Theorem 2.1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accountant.errors import check
from accountant.factorization.participation import (
    FixedEpochs,
    MinSeparation,
    Participation,
    Reshuffled,
)

Array = NDArray[np.float64]

_UP = 1 + 1e-11  # more than sums of some thousand rounded terms are off
_NEAR = 1.001  # of what evenly spaced contributions reach, at least: no need to look further
_MOST_ENTRIES = 2**25  # of CᵀC that are looked at
_ROWS = 256  # of it at once, where each is looked at by epochs


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """An upper end, whether some record reaches it, and the argument."""

    upper: float
    exact: bool
    rests_on: str


def sensitivity(coefficients: Array, steps: int, participation: Participation) -> Sensitivity:
    """L2 sensitivity of a lower triangular Toeplitz matrix, for contributions of norm ≤ 1.

    Args:
        coefficients: the matrix's first column, up to its last entry that is not zero.
        steps: its rows, and columns.
        participation: which steps one record may contribute to.

    >>> c = np.array([1.0, 0.5])
    >>> found = sensitivity(c, 100, FixedEpochs(steps_per_epoch=25))
    >>> round(found.upper**2, 6), found.exact, found.rests_on
    (5.0, True, 'columns that one record touches are orthogonal')
    """
    c = coefficients[:steps]
    bands, most = len(c), participation.most(steps)
    if bands == 1:
        root = math.isqrt(most)
        value = root if root * root == most and c[0] == 1 else math.sqrt(most) * _UP
        return _found(abs(float(c[0])) * value, True, "one entry a column")
    if most <= 1:
        return _found(_norm(c) * _UP, True, "the norm of the first column, the longest")
    if isinstance(participation, Reshuffled):
        return _reshuffled(c, steps, participation.steps_per_epoch)
    apart = separation(participation, steps)
    spaced = _norm(evenly_spaced(c, steps, most, apart)) * _UP
    if bands <= apart:
        return _found(spaced, True, "columns that one record touches are orthogonal")
    if (c >= 0).all():
        if isinstance(participation, FixedEpochs):
            return _found(spaced, True, "no entry is negative: the first step's order is worst")
        if (np.diff(c) <= 0).all():
            return _found(spaced, True, "decreasing entries [Kalinin, Lampert 2024, Theorem 2]")
    falling = np.maximum.accumulate(abs(c)[::-1])[::-1]
    above = _norm(evenly_spaced(falling, steps, most, apart)) * _UP
    rounds = 1 if isinstance(participation, FixedEpochs) else min(most, bands // apart)
    if above <= _NEAR * spaced or steps * bands * rounds > _MOST_ENTRIES:
        return _found(above, False, "decreasing entries above its own [Kalinin, Lampert 2024]")
    gram = _gram(c, steps)
    if isinstance(participation, FixedEpochs):
        chain = most == 2 or bands <= 2 * apart
        return _found(_fixed(gram, steps, apart), chain, "the sum of |CᵀC| over each order")
    by_rows = _separated(gram, most, apart)
    return _found(min(by_rows, above), False, "rows of |CᵀC| [Choquette-Choo et al. 2023]")


def separation(participation: Participation, steps: int) -> int:
    """Steps that lie at least between two contributions of one record."""
    match participation:
        case MinSeparation(separation=apart):
            return min(apart, steps)
        case FixedEpochs(steps_per_epoch=apart):
            return min(apart, steps)
        case Reshuffled():
            return 1
    return steps


def evenly_spaced(c: Array, steps: int, most: int, apart: int) -> Array:
    """Sum of the columns 0, apart, 2 apart, …: what a record moves that always adds the same.

    >>> evenly_spaced(np.array([1.0, 0.5, 0.25]), 5, 3, 2)
    array([1.  , 0.5 , 1.25, 0.5 , 1.25])
    """
    moved = np.zeros(steps + len(c))
    for start in range(0, min(most * apart, steps), apart):
        moved[start : start + len(c)] += c
    return moved[:steps]


def _found(upper: float, exact: bool, rests_on: str) -> Sensitivity:
    return Sensitivity(upper=float(upper), exact=exact, rests_on=rests_on)


def _norm(vector: Array) -> float:
    return float(np.sqrt(np.sum(vector * vector)))


def _gram(c: Array, steps: int) -> Array:
    """|(CᵀC)[i, i + d]| at [i, d], zero where i + d is no step."""
    bands = len(c)
    check(
        steps * bands <= _MOST_ENTRIES,
        "steps × bands",
        steps * bands,
        f"more than {_MOST_ENTRIES} where columns overlap",
        "take bands no longer than the separation",
    )
    gram = np.zeros((steps, bands))
    for d in range(bands):
        upto = np.concatenate([[0.0], np.cumsum(c[: bands - d] * c[d:])])
        rows = steps - d - np.arange(steps)  # of column i + d
        gram[:, d] = np.abs(upto[np.clip(rows, 0, bands - d)])
    return gram


def _fixed(gram: Array, steps: int, apart: int) -> float:
    """√ of the largest Σ |CᵀC| over the orders o, o + apart, …"""
    lags = gram[:, ::apart].copy()
    lags[:, 1:] *= 2
    weights = lags.sum(axis=1)
    padded = np.concatenate([weights, np.zeros(-steps % apart)])
    return math.sqrt(padded.reshape(-1, apart).sum(axis=0).max()) * _UP


def _separated(gram: Array, most: int, apart: int) -> float:
    """√ of a bound on Σ |CᵀC|: each row's worst by itself, then the worst rows."""
    steps, bands = gram.shape
    right = gram.copy()
    left = np.zeros_like(gram)
    for d in range(1, min(bands, steps)):
        left[d:, d] = gram[: steps - d, d]
    rows = gram[:, 0] + _best(right, most - 1, apart) + _best(left, most - 1, apart)
    best = np.zeros(steps + apart)
    for _ in range(most):
        best[apart:] = np.maximum.accumulate(rows + best[:steps])
    return math.sqrt(best[-1]) * _UP


def _best(entries: Array, most: int, apart: int) -> Array:
    """Each row's largest sum of at most ``most`` entries, the first one ``apart`` from entry 0."""
    steps, bands = entries.shape
    best = np.zeros((steps, bands + apart))
    for _ in range(min(most, (bands - 1) // apart)):
        shifted = best[:, :bands].copy()
        shifted[:, apart:] += entries[:, apart:]
        shifted[:, :apart] = 0
        best[:, apart:] = np.maximum.accumulate(shifted, axis=1)
    return np.asarray(best[:, -1])


def _reshuffled(c: Array, steps: int, epoch: int) -> Sensitivity:
    """One step an epoch, anywhere: a chain, if only neighbouring epochs overlap."""
    gram, bands = _gram(c, steps), len(c)
    starts = range(0, steps, epoch)
    if bands <= epoch + 1:
        best = gram[:epoch, 0].copy()
        for start in starts[1:]:
            here = np.arange(start, min(start + epoch, steps))
            before = np.arange(start - epoch, start)
            lag = here[None, :] - before[:, None]
            pair = np.where(lag < bands, gram[before[:, None], np.minimum(lag, bands - 1)], 0.0)
            best = gram[here, 0] + (best[:, None] + 2 * pair).max(axis=0)
        return _found(math.sqrt(best.max()) * _UP, True, "the worst chain of steps, one an epoch")
    total = sum(_worst_row(gram, start, epoch) for start in starts)
    return _found(math.sqrt(total) * _UP, False, "each step's worst partner in each epoch")


def _worst_row(gram: Array, start: int, epoch: int) -> float:
    """Of the steps of the epoch from ``start`` on, the largest Σ of its worst with each epoch."""
    steps, bands = gram.shape
    first = max(start - bands + 1, 0) // epoch * epoch
    columns = np.arange(first, min(start + epoch + bands - 1, steps))
    highest = 0.0
    for at in range(start, min(start + epoch, steps), _ROWS):
        rows = np.arange(at, min(at + _ROWS, start + epoch, steps))
        lags = abs(columns - rows[:, None])
        entries = gram[np.minimum(rows[:, None], columns), np.minimum(lags, bands - 1)]
        entries[lags >= bands] = 0
        worst = np.maximum.reduceat(entries, np.arange(0, len(columns), epoch), axis=1)
        worst[:, (start - first) // epoch] = gram[rows, 0]  # itself, and no other of its epoch
        highest = max(highest, float(worst.sum(axis=1).max()))
    return highest
