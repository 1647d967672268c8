"""Buffered linear Toeplitz factors (BLT): columns that are a few geometric sequences, added up.

The same few buffers serve a stream of any length: memory does not grow with how far noise reaches
back [Dvijotham, McMahan, Pillutla, Steinke, Thakurta 2024, "Efficient and near-optimal noise
generation for streaming differential privacy", section 4].
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy  # which loads its submodules when they are first used

from accountant.errors import check
from accountant.factorization.buffers import Buffers
from accountant.factorization.factor import Array, Factor
from accountant.factorization.least import DIGITS, Least, Objective, minimised
from accountant.factorization.participation import Participation

MOST = 10  # buffers; beyond four or five the error does not fall by a thousandth

_SMALLEST = 1e-9  # 1 − λ: entries still decrease by more than they are rounded
_SAME = 1e-9  # of losses that differ by rounding
_SHARE = 1.0 - 1e-6  # Σ ω at most: c_1 ≤ c_0


def blt(
    steps: int,
    buffers: int = 3,
    participation: Participation | None = None,
    objective: Objective = "rms",
) -> Factor:
    """Buffered linear Toeplitz factor of least error × sensitivity, by L-BFGS.

    [McMahan, Xu, Zhang 2024, "A hassle-free algorithm for strong differential privacy in federated
    learning systems", section 3]. A gradient costs O(steps × buffers).

    * c_0 = 1, c_t = Σ_i ω_i λ_i^{t−1} with 0 ≤ λ_i < 1, ω_i > 0 and Σ ω_i < 1: no entry is negative
      and entries decrease, so that ``sensitivity`` is exact for every pattern but ``Reshuffled``.
    * As many noise vectors are kept as there are buffers.
    * C is full: records pay for overlaps of their participations, and cyclic Poisson sampling does
      not amplify it.

    Args:
        steps: of the run.
        buffers: d, 1 to 10.
        participation: what the sensitivity is minimised for (default: a single pass).
        objective: ``rms``, root mean square over steps, or ``max``, the last prefix sum.

    >>> from accountant.factorization.participation import SinglePass
    >>> factor = blt(2000, 3)
    >>> factor.kept, factor.bands
    (3, 2000)
    >>> ratio = factor.root_mean_square_error(SinglePass()) / (1000.5**0.5)
    >>> print(f"{ratio:.3f} of independent noise's error")
    0.103 of independent noise's error
    """
    check(
        1 <= buffers <= MOST and buffers % 1 == 0,
        "buffers",
        buffers,
        f"must be a whole number between 1 and {MOST}",
        "take 3",
    )
    least = Least.of(steps, participation, objective)
    ones = np.ones(steps)

    def loss(free: Array) -> tuple[float, Array]:
        parts, by_free = _of_free(free)
        column = parts.column(steps)
        squared, by_column = least.sensitivity(column)
        inverse = parts.inverse()
        b = inverse.applied(ones)  # first column of B = A C⁻¹
        error, pulled = least.error(b)
        again = inverse.applied(b)
        return least.log_loss(
            (error, by_free @ -_gradient(parts, pulled, again)),
            (squared, by_free @ _gradient(parts, by_column, _first(steps))),
        )

    ends = [minimised(loss, start) for start in _starts(steps, buffers, least.apart)]
    losses = np.array([loss(end)[0] for end in ends])
    first = int(np.argmax(losses <= losses.min() + _SAME))  # not the least by a rounding
    found, _ = _of_free(ends[first])
    return Factor.of_buffers(f"blt:{buffers}", steps, _rounded(found))


def _gradient(parts: Buffers, pulled: Array, column: Array) -> Array:
    """Of pulled · (C column) by ω, then by λ."""
    by_weight, by_decay = [], []
    for weight, decay in zip(parts.weights, parts.decays, strict=True):
        once = scipy.signal.lfilter([0.0, 1.0], [1.0, -decay], column)
        twice = scipy.signal.lfilter([0.0, 1.0], [1.0, -decay], once)
        by_weight.append(pulled @ once)
        by_decay.append(weight * (pulled @ twice))
    return np.array([*by_weight, *by_decay])


def _of_free(free: Array) -> tuple[Buffers, Array]:
    """Weights and decays of any real numbers, and the derivatives [free, weights and decays].

    ω is a softmax that leaves a share to c_0 − c_1, and λ = 1 − exp(−log(1 + exp x)).
    """
    half = len(free) // 2
    top = max(0.0, float(free[:half].max()))
    shares = np.exp(free[:half] - top)
    weights = _SHARE * shares / (np.exp(-top) + shares.sum())
    less = np.maximum(scipy.special.expit(-free[half:]), _SMALLEST)  # 1 − λ
    derivatives = np.zeros((2 * half, 2 * half))
    derivatives[:half, :half] = np.diag(weights) - np.outer(weights, weights) / _SHARE
    derivatives[half:, half:] = np.diag(less * (1 - less))
    return Buffers(tuple(weights.tolist()), tuple((1 - less).tolist())), derivatives


def _starts(steps: int, buffers: int, apart: int) -> list[Array]:
    """Of c_t ≈ (πt)^−½ = ∫ e^{−st} s^{−½} ds / π, at a few s from ``fast`` to 1 / ``slow``."""
    starts = []
    for slow, fast in itertools.product(dict.fromkeys((steps, apart, 100 * steps)), (1.0, 4.0)):
        reach = fast * max(slow, 2)
        rates = np.geomspace(fast, fast / reach, buffers + 2)[1:-1]
        weights = np.sqrt(rates) * np.log(reach) / (buffers + 1) / np.pi
        weights = np.minimum(weights, 0.9 / buffers)
        less = -np.expm1(-rates)
        free = 1 - weights.sum()
        starts.append(np.concatenate([np.log(weights / free), -np.log(less / (1 - less))]))
    return starts


def _rounded(found: Buffers) -> Buffers:
    """ω and 1 − λ to so many digits, slowest last: the error is flat at its least."""
    pairs = sorted(zip(found.decays, found.weights, strict=True))
    decays = [1 - float(f"{1 - decay:.{DIGITS - 1}e}") for decay, _ in pairs]
    weights = [float(f"{weight:.{DIGITS - 1}e}") for _, weight in pairs]
    return Buffers(tuple(weights), tuple(decays))


def _first(steps: int) -> Array:
    first = np.zeros(steps)
    first[0] = 1
    return first
