"""Fourier sums over points that lie anywhere, at evenly spaced frequencies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ERROR = 1e-13
"""Bound on a sum's error over its sum of weights, beside the rounding of k·x_j itself."""

_SPREAD = 16  # grid cells the kernel reaches to either side
_WIDTH = 66.0  # aliases weigh exp(−33), what is cut off exp(−34)
_BLOCK = 1 << 14  # points spread at a time, for memory


def fourier_sums(points: Array, weights: Array, count: int) -> NDArray[np.complex128]:
    r"""Σ_j w_j exp(2πi k x_j) for k = 0 … count − 1.

    Each point is spread over a grid four times as fine as needed by a Gaussian kernel
    exp(−π²d²/66), d the distance in cells; one real FFT transforms the grid, and the kernel's own
    transform is divided out [Greengard, Lee 2004, Sec. 2]. With n cells and k ≤ n/4, neighbouring
    aliases of the kernel are below exp(−66/2) = 5e-15 of it; cut off 16 cells away, it loses
    exp(−16²π²/66 + 66/16) = 2e-15. Rounding adds a few units in the last place.

    Args:
        points: (J,) positions x_j, in periods of the lowest frequency; any real numbers.
        weights: (J,) real weights.
        count: number of frequencies.

    >>> fourier_sums(np.array([0.0, 0.25]), np.array([1.0, 1.0]), 3).round(12) + 0
    array([2.+0.j, 1.+1.j, 0.+0.j])
    """
    size = fast_length(4 * count + 4 * _SPREAD)
    offsets = np.arange(-_SPREAD, _SPREAD + 1)
    grid = np.zeros(size)
    for start in range(0, points.size, _BLOCK):
        position = points[start : start + _BLOCK]
        position = (position - np.rint(position)) * size
        cell = np.rint(position)
        distance = (position - cell)[:, None] - offsets
        mass = np.exp(-(math.pi**2 / _WIDTH) * distance**2)
        mass *= weights[start : start + _BLOCK, None]
        where = (cell.astype(np.int64)[:, None] + offsets) % size
        grid += np.bincount(where.ravel(), mass.ravel(), minlength=size)
    frequency = np.arange(count) / size
    transform: NDArray[np.complex128] = np.fft.rfft(grid)[:count].conj()
    return transform * (np.exp(_WIDTH * frequency**2) / math.sqrt(_WIDTH / math.pi))


def fast_length(least: int) -> int:
    """The smallest length 2ᵃ3ᵇ5ᶜ ≥ ``least``, which a real FFT takes in few steps.

    >>> fast_length(1025)
    1080
    """
    best = 1 << (least - 1).bit_length()
    for fives in range(best.bit_length()):
        for threes in range(best.bit_length()):
            odd = 5**fives * 3**threes
            if odd >= best:
                break
            best = min(best, odd << (-(-least // odd) - 1).bit_length())
    return best
