"""Factors in closed form: the square root of the prefix-sum matrix, and its inverse, banded."""

from __future__ import annotations

import numpy as np

from accountant.factorization.factor import Array, Factor


def independent(steps: int) -> Factor:
    """Independent noise, C = 1: what DP-SGD adds.

    >>> independent(100).kept
    0
    """
    return Factor(name="independent", steps=steps, coefficients=(1.0,))


def square_root(length: int, sign: int = 1) -> Array:
    """Coefficients of (1 − x)^(∓1/2): of the square root of A, or with ``sign`` −1 of its inverse.

    >>> square_root(4)
    array([1.    , 0.5   , 0.375 , 0.3125])
    >>> square_root(4, -1)
    array([ 1.    , -0.5   , -0.125 , -0.0625])
    """
    j = np.arange(1, length)
    return np.concatenate([[1.0], np.cumprod((j - 1 + sign / 2) / j)])


def banded_sqrt(steps: int, bands: int) -> Factor:
    """Banded square root of the prefix-sum matrix [Kalinin, Lampert 2024, "Banded square root …"].

    c_j = 4^−j (2j choose j) for j < bands; positive and decreasing.

    >>> banded_sqrt(2000, 4).coefficients
    (1.0, 0.5, 0.375, 0.3125)
    """
    return _banded(f"banded_sqrt:{bands}", steps, square_root(bands))


def banded_inverse_sqrt(steps: int, bands: int) -> Factor:
    """Banded inverse square root: C⁻¹ is banded, not C [Kalinin et al. 2025, "BISR"].

    Noise is w convolved with ``bands`` coefficients; C itself has a column of ``steps`` entries,
    so that a record pays for every overlap of its participations: no cyclic Poisson sampling.

    >>> factor = banded_inverse_sqrt(4, 2)
    >>> factor.inverse, factor.coefficients
    ((1.0, -0.5), (1.0, 0.5, 0.25, 0.125))
    """
    column = square_root(min(bands, steps), -1)
    return Factor.of_inverse(f"banded_inverse_sqrt:{bands}", steps, column)


def _banded(name: str, steps: int, column: Array) -> Factor:
    return Factor(name=name, steps=steps, coefficients=tuple(column[:steps].tolist()))
