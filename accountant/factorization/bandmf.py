"""Optimised banded factors: of C (BandMF), or of its inverse (BandInvMF)."""

from __future__ import annotations

import numpy as np
import scipy  # which loads its submodules when they are first used

from accountant.factorization.factor import Array, Factor, inverted
from accountant.factorization.least import (
    DIGITS,
    Least,
    Objective,
    best,
    check_bands,
    correlate,
    minimised,
)
from accountant.factorization.participation import Participation
from accountant.factorization.square_roots import square_root


def bandmf(
    steps: int,
    bands: int,
    participation: Participation | None = None,
    objective: Objective = "rms",
) -> Factor:
    """Banded matrix factorization: the banded C of least error × sensitivity, by L-BFGS.

    [Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization"; McKenna 2025, "Scaling
    up the banded matrix factorization mechanism", section 4]. A gradient costs O(steps × bands).

    Args:
        steps: of the run.
        bands: b, at most the steps; b − 1 noise vectors are kept.
        participation: what the sensitivity is minimised for (default: a single pass, whose factor
            serves cyclic Poisson sampling as well). Contributions are taken to be evenly spaced;
            the factor's ``sensitivity`` is computed anew for any pattern it is asked about.
        objective: ``rms``, root mean square over steps, or ``max``, the last prefix sum.

    >>> from accountant.factorization.participation import SinglePass
    >>> factor = bandmf(2000, 16)
    >>> ratio = factor.root_mean_square_error(SinglePass()) / (1000.5**0.5)
    >>> print(f"{ratio:.3f} of independent noise's error")
    0.270 of independent noise's error
    """
    check_bands(steps, bands)
    least = Least.of(steps, participation, objective)

    def loss(free: Array) -> tuple[float, Array]:
        c = np.concatenate([[1.0], free])
        column = scipy.signal.lfilter([1.0], c, np.ones(steps))  # of B = A C⁻¹
        error, pulled = least.error(column)
        again = scipy.signal.lfilter([1.0], c, column)
        by_c = -correlate(pulled, again, bands)
        squared, by_squared = least.sensitivity(c)
        return least.log_loss((error, by_c[1:]), (squared, by_squared[1:]))

    def decreasing(drops: Array) -> tuple[float, Array]:
        c = np.cumsum(drops[::-1])[::-1]
        value, by_rest = loss(c[1:] / c[0])  # the loss does not change with the scale of c
        by_c = np.concatenate([[-(by_rest @ c[1:]) / c[0]], by_rest]) / c[0]
        return value, np.cumsum(by_c)

    start = square_root(bands)
    if bands == 1:
        found = start
    elif bands <= least.apart:
        found = np.concatenate([[1.0], minimised(loss, start[1:])])
    else:  # columns of one record overlap: exactly priced where entries decrease
        found = minimised(decreasing, start - np.append(start[1:], 0.0), between=(0.0, None))
        found = np.cumsum(found[::-1])[::-1]
    c = tuple(np.round(found / found[0], DIGITS).tolist())
    return Factor(name=f"bandmf:{bands}", steps=steps, coefficients=c)


def bandinvmf(
    steps: int,
    bands: int,
    participation: Participation | None = None,
    objective: Objective = "rms",
) -> Factor:
    """Banded inverse matrix factorization: the same with C⁻¹ banded instead of C, which is full.

    [Kalinin, McKenna, Upadhyay, Lampert 2025, "Back to square roots", BandInvMF]. For as many noise
    vectors kept its error is less than that of ``bandmf``; but records pay for overlaps of their
    participations, and cyclic Poisson sampling does not amplify it.

    >>> from accountant.factorization.participation import SinglePass
    >>> factor = bandinvmf(2000, 2)
    >>> factor.kept, len(factor.inverse), factor.bands
    (1, 2, 2000)
    >>> ratio = factor.root_mean_square_error(SinglePass()) / (1000.5**0.5)
    >>> print(f"{ratio:.3f} of independent noise's error")
    0.179 of independent noise's error
    """
    check_bands(steps, bands)
    least = Least.of(steps, participation, objective)

    def loss(free: Array) -> tuple[float, Array]:
        p = np.concatenate([[1.0], free])
        column = np.cumsum(np.concatenate([p, np.zeros(steps - bands)]))  # of B = A C⁻¹
        error, pulled = least.error(column)
        by_error = np.cumsum(pulled[::-1])[::-1][:bands]
        c = inverted(p, steps)
        squared, by_squared = least.sensitivity(c)
        again = scipy.signal.lfilter([1.0], p, c)
        by_p = -correlate(by_squared, again, bands)
        return least.log_loss((error, by_error[1:]), (squared, by_p[1:]))

    name, start = f"bandinvmf:{bands}", square_root(bands, -1)
    if bands == 1:
        return Factor.of_inverse(name, steps, start)
    # no entry of C is negative where none after the first of C⁻¹ is positive
    between = (None, None) if least.most == 1 else (-1.0, 0.0)
    found = np.concatenate([[1.0], np.round(minimised(loss, start[1:], between), DIGITS)])
    candidates = [Factor.of_inverse(name, steps, column) for column in (found, start)]
    return best(candidates, participation, objective)
