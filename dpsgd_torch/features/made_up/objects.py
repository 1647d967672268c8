"""Made-up objects: overlapping rounded shapes, patterned and often mirrored; of no known class."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def made_up_objects(count: int, side: int = 28, seed: int = 0) -> tuple[torch.Tensor, None]:
    """(count, 1, side, side) in [0, 1], and no classes; the same for one seed.

    Each is of one to five super-ellipses |u|^p + |v|^p ≤ 1, turned, each of one grey; stripes,
    holes and grain are laid over it, and half of the time its left is its right mirrored. It
    fills the picture's height or width.

    >>> made_up_objects(2)[0].shape
    torch.Size([2, 1, 28, 28])
    """
    rng = np.random.default_rng([seed, side, 1])
    images = np.stack([_object(rng, side) for _ in range(count)]) if count else np.zeros((0,) * 3)
    return torch.from_numpy(images).float().view(count, 1, side, side), None


def _object(rng: np.random.Generator, side: int) -> Floats:
    y, x = (np.mgrid[: 2 * side, : 2 * side] + 0.5) / side - 1
    if rng.random() < 0.5:
        x = np.abs(x)  # mirrored
    image = np.zeros((2 * side, 2 * side))
    for _ in range(rng.integers(1, 6)):
        shape = _inside(rng, x, y, reach=0.6, size=(0.25, 1.0))
        image = np.where(shape, rng.uniform(0.2, 1.0), image)
    if rng.random() < 0.4:
        image = image * (1 + rng.uniform(0.1, 0.6) * _stripes(rng, x, y))
    if rng.random() < 0.3:
        image = np.where(_inside(rng, x, y, reach=0.7, size=(0.1, 0.5)), 0, image)
    y, x = y[::2, ::2], x[::2, ::2]
    image = _filling(image, side)
    if rng.random() < 0.6:
        image = image + (image > 0) * rng.normal(0, rng.uniform(0.02, 0.15), (side, side))
    shade = 1 + rng.normal(0, 0.15) * x + rng.normal(0, 0.15) * y
    return np.asarray(np.clip(image * shade, 0, 1))


def _filling(image: Floats, side: int) -> Floats:
    """What is not black, at the scale at which it fills the height or the width, in the middle."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((side, side))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shape = [max(1, round(side * size / max(cut.shape))) for size in cut.shape]
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(cut)[None, None], shape, mode="bilinear", antialias=True
    )
    top, left = ((side - size) // 2 for size in shape)
    filled = np.zeros((side, side))
    filled[top : top + shape[0], left : left + shape[1]] = scaled[0, 0].numpy()
    return filled


def _inside(
    rng: np.random.Generator, x: Floats, y: Floats, *, reach: float, size: tuple[float, float]
) -> NDArray[np.bool_]:
    a, b = rng.uniform(-reach, reach, 2)
    angle = rng.choice([0.0, rng.uniform(0, np.pi)])
    wide, tall = rng.uniform(*size, 2)
    u = ((x - a) * np.cos(angle) + (y - b) * np.sin(angle)) / wide
    v = ((y - b) * np.cos(angle) - (x - a) * np.sin(angle)) / tall
    power = rng.uniform(1, 6)
    return np.asarray(np.abs(u) ** power + np.abs(v) ** power <= 1)


def _stripes(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    along = x * np.cos(angle) + y * np.sin(angle)
    return np.asarray(np.sin(rng.uniform(4, 30) * along + rng.uniform(0, 2 * np.pi)))
