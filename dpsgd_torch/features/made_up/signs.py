"""Made-up signs: an alphabet that nobody writes, of strokes drawn at random once for all.

They know how a pen draws and nothing of digits or letters: each sign's control points come from a
generator, and no sign was chosen or left out for what it looks like.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from dpsgd_torch.features.made_up.pen import Floats, Way, written

SIGNS = 100
_ALPHABET = 1729


def made_up_signs(count: int, side: int = 28, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 1, side, side) in [0, 1] and (count,) signs, below 100; of one seed the same.

    >>> images, signs = made_up_signs(3, side=8)
    >>> images.shape, signs.shape
    (torch.Size([3, 1, 8, 8]), torch.Size([3]))
    """
    rng = np.random.default_rng([seed, side, 3])
    signs = rng.integers(0, SIGNS, count)
    return written(rng, lambda sign: _alphabet()[sign], signs, side), torch.from_numpy(signs)


@cache
def _alphabet() -> list[Way]:
    rng = np.random.default_rng(_ALPHABET)
    return [_sign(rng) for _ in range(SIGNS)]


def _sign(rng: np.random.Generator) -> Way:
    """One or two strokes, each a smooth walk, with a corner now and then."""
    strokes = []
    for _ in range(1 + (rng.random() < 0.35)):
        walk = _walk(rng)
        cut = rng.integers(1, len(walk) - 1) if len(walk) > 3 and rng.random() < 0.4 else 0
        strokes.append([walk[: cut + 1], walk[cut:]] if cut else [walk])
    return strokes


def _walk(rng: np.random.Generator) -> Floats:
    """(3 to 9, 2) points that turn by about as much each time, within 0 to 10."""
    at, heading = rng.uniform(1, 9, 2), rng.uniform(0, 2 * np.pi)
    turn, length = rng.normal(0, 0.8), rng.uniform(2.5, 5)
    points = [at]
    for _ in range(rng.integers(2, 9)):
        if rng.random() < 0.2:
            turn = -turn
        heading += turn + rng.normal(0, 0.4)
        at = at + length * np.array([np.cos(heading), np.sin(heading)])
        if ((at < 0) | (at > 10)).any():
            at = np.clip(at, 0, 10)
            heading = np.arctan2(*(5 - at)[::-1]) + rng.normal(0, 0.5)
        points.append(at)
    return np.array(points)
