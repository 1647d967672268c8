"""Banded matrix factorization with optimised Toeplitz coefficients (BandMF)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy  # which loads its submodules when they are first used

from accountant.errors import check
from accountant.factorization.factor import Array, Factor
from accountant.factorization.participation import Participation, SinglePass
from accountant.factorization.sensitivity import evenly_spaced, separation
from accountant.factorization.square_roots import square_root

_DIGITS = 6  # coefficients are rounded to: the error is flat at its least, machines differ below

Objective = Literal["rms", "max"]


def bandmf(
    steps: int,
    bands: int,
    participation: Participation | None = None,
    objective: Objective = "rms",
) -> Factor:
    """Banded Toeplitz factor of least error of prefix sums × sensitivity, found by L-BFGS.

    [Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization"; McKenna 2025, "Scaling
    up the banded matrix factorization mechanism", section 4]. The gradient costs O(steps × bands).

    Args:
        steps: of the run.
        bands: b, at most the steps; b − 1 noise vectors are kept.
        participation: what the sensitivity is minimised for (default: a single pass, whose factor
            serves cyclic Poisson sampling as well). Contributions are taken to be evenly spaced;
            the factor's ``sensitivity`` is computed anew for any pattern it is asked about.
        objective: ``rms``, root mean square over steps, or ``max``, the last prefix sum.

    >>> factor = bandmf(2000, 16)
    >>> ratio = factor.root_mean_square_error(SinglePass()) / (1000.5**0.5)
    >>> print(f"{ratio:.3f} of independent noise's error")
    0.270 of independent noise's error
    """
    check(
        1 <= bands <= steps and bands % 1 == 0,
        "bands",
        bands,
        f"must be a whole number between 1 and steps = {steps}",
        "lower the bands",
    )
    check(objective in ("rms", "max"), "objective", objective, "must be rms or max")
    pattern = participation or SinglePass()
    most, apart = pattern.most(steps), separation(pattern, steps)
    weights = (steps - np.arange(steps)) / steps if objective == "rms" else np.ones(steps)

    def loss(free: Array) -> tuple[float, Array]:
        return _log_error(np.concatenate([[1.0], free]), weights, most, apart)

    found = square_root(bands)
    if bands > 1:
        answer = scipy.optimize.minimize(
            loss,
            found[1:],
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxcor": 30, "ftol": 1e-14, "gtol": 1e-9},
        )
        found = np.concatenate([[1.0], np.round(answer.x, _DIGITS)])
    return Factor(name=f"bandmf:{bands}", steps=steps, coefficients=tuple(found.tolist()))


def _log_error(c: Array, weights: Array, most: int, apart: int) -> tuple[float, Array]:
    """log(error² × sensitivity²) and its gradient by c_1, c_2, …"""
    steps, bands = len(weights), len(c)
    with np.errstate(all="ignore"):
        column = scipy.signal.lfilter([1.0], c, np.ones(steps))  # of B = A C⁻¹
        error = float(np.sum(weights * column * column))
        if not error < 1e200:  # a step too far: C⁻¹ grows without bound
            return 1e3, np.zeros(bands - 1)
    again = scipy.signal.lfilter([1.0], c, column)
    pulled = weights * column
    by_error = [-2 * float(pulled[j:] @ again[: steps - j]) for j in range(1, bands)]
    moved = evenly_spaced(c, steps, most, apart)
    padded = np.concatenate([moved, np.zeros(bands)])
    by_moved = np.zeros(bands)
    for start in range(0, min(most * apart, steps), apart):
        by_moved += 2 * padded[start : start + bands]
    squared = float(moved @ moved)
    return (
        float(np.log(error) + np.log(squared)),
        np.array(by_error) / error + by_moved[1:] / squared,
    )
