"""Features of recorded motions: how much each axis moves, how fast, and which move together.

Each recording's rest on it alone; they are whitened by made-up motions of no known gesture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dpsgd_torch.features.made_up.motions import PRIOR, random_motions
from dpsgd_torch.features.whitening import Whitening

Floats = NDArray[np.float64]

_UNITS = np.array([1.0] * 3 + [100.0] * 3)  # g, and hundreds of degrees a second
_FLOOR = np.array([0.05] * 3 + [0.1] * 3)  # below it an axis rests: the logarithm bends there
_PAIRS = np.triu_indices(6, 1)
_ALIKE = 0.7  # weight of the correlations
_SEED = 20261130


@dataclass(frozen=True, kw_only=True)
class MotionRecipe:
    """(n, samples, 6) in g and degrees a second → (n, directions), with nothing of the data in it.

    Attributes:
        directions: principal directions of made-up motions that are kept, of 32.
        ridge: λ in z = Vᵀ(f − μ) / √(s² + λ).
        norm: of every row's features.
        made: motions that are made up to whiten by.

    >>> MotionRecipe(directions=4, made=100)(random_motions(2)).shape
    torch.Size([2, 4])
    """

    directions: int = 16
    ridge: float = 0.1
    norm: float = 2.0
    made: int = 1500

    @property
    def prior(self) -> str:
        """What is known beforehand, in words for the statement."""
        return f"fixed statistics of its six axes, whitened by {PRIOR}"

    def __call__(self, motion: Floats) -> torch.Tensor:
        made = torch.from_numpy(statistics(random_motions(self.made, _SEED))).float()
        whiten = Whitening.of(made, count=self.directions, ridge=self.ridge, norm=self.norm)
        return whiten(torch.from_numpy(statistics(motion)).float())


def statistics(motion: Floats) -> Floats:
    """(n, samples, 6) → (n, 32): what a recording says without telling when.

    By axis the logarithm of its deviation and of its typical frequency; where gravity lies; the
    correlations of axes; and the logarithm of all acceleration and of all rotation.

    >>> statistics(np.zeros((1, 119, 6))).shape
    (1, 32)
    """
    scaled = motion / _UNITS
    middle = scaled.mean(axis=1)
    about = scaled - middle[:, None]
    size = about.std(axis=1)
    # samples a radian: a sine's slope over its deviation is its frequency
    slope = np.diff(about, axis=1).std(axis=1) * motion.shape[1] / (2 * np.pi)
    both = np.einsum("ntj,ntk->njk", about, about) / motion.shape[1]
    alike = both / ((size + _FLOOR)[:, :, None] * (size + _FLOOR)[:, None, :])
    whole = [np.linalg.norm(size[:, part], axis=1) for part in (slice(3), slice(3, 6))]
    parts = [
        np.log(size + _FLOOR),
        np.tanh(middle[:, :3]),
        np.log((slope + _FLOOR) / (size + _FLOOR)),
        _ALIKE * alike[:, _PAIRS[0], _PAIRS[1]],
        np.log(np.stack(whole, axis=1) + _FLOOR[[0, 3]]),
    ]
    return np.concatenate(parts, axis=1)
