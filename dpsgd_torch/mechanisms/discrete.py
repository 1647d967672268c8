"""A noisy sum of bounded scores with discrete Gaussian noise, exact: that of secure mode."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accountant import DiscreteGaussian
from accountant.errors import check
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.secure.discrete import LARGEST, discrete_gaussian
from dpsgd_torch.secure.generator import secure_bits

CELLS = 2**30  # of the grid, to the largest that one record contributes
PASS = 2.0**-19  # of that, by which passes over another batch may move a record's rounding


def score_event(noise_multiplier: float, size: int) -> DiscreteGaussian:
    """What one release of ``noisy_score_sum`` costs.

    Each unit adds ⌊score / bound × 2³⁰⌋ cells, a whole number between 0 and 2³⁰, and whole numbers
    add up exactly. Of at most 2 ``size`` other units each may score by 2⁻¹⁹ more or less where
    batches are cut elsewhere (all passes have one size): 2¹¹ cells, and one for being cut to whole
    ones.

    >>> score_event(50.0, 1000).sensitivity / CELLS
    1.0038...
    """
    cells = CELLS + 2 * size * (round(PASS * CELLS) + 1)
    deviation = noise_multiplier * CELLS
    rule = f"must lie between 2^-18 and {LARGEST / CELLS:g} in secure mode"
    check(4096 < deviation <= LARGEST, "validation noise_multiplier", noise_multiplier, rule)
    relative = math.nextafter(deviation / cells, 0.0)
    return DiscreteGaussian(noise_multiplier=math.nextafter(relative, 0.0), sensitivity=cells)


def noisy_score_sum(
    scores: NDArray[np.float64], noise_multiplier: float, rng: np.random.Generator
) -> float:
    """Σ clip(score) to [0, 1], and noise of deviation ``noise_multiplier``; NaN counts as 1.

    >>> from dpsgd_torch.secure.generator import secure_generator
    >>> round(noisy_score_sum(np.array([0.5, 9.0]), 1e-5, secure_generator(bytes(32))), 3)
    1.5
    """
    if (bits := secure_bits(rng)) is None:
        raise GuaranteeBroken(
            "validation: secure noise was asked of a generator that is not; nothing was released: "
            "pass secure=True to whoever trains"
        )
    clipped = np.clip(np.nan_to_num(scores, nan=1.0), 0.0, 1.0)
    total = int(np.floor(clipped * CELLS).astype(np.int64).sum())
    noise = discrete_gaussian(bits, noise_multiplier * CELLS, 1)
    return (total + int(noise[0])) / CELLS
