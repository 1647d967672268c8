"""Rényi curve of a Gaussian release over a sample of fixed size, by a published bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def rdp_fixed_size_gaussian(
    sampling_rate: float, noise_multiplier: float, orders: ArrayLike
) -> Array:
    raise NotImplementedError
