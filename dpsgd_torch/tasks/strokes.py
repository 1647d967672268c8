"""Pen strokes drawn at random: pictures like handwritten digits that show nobody's hand.

They stand in for private images where an export needs to see what activations are like.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_SEED = 20260101
_POINTS = 40  # along a stroke


def stroke_images(count: int, size: int = 28, seed: int = _SEED) -> torch.Tensor:
    """(count, 1, size, size) in [0, 1]: one or two curved strokes each, the same for one seed.

    A stroke is a cubic Bézier curve through the middle 20 of 28 pixels, drawn by a pen with a soft
    edge, about as wide as MNIST's.

    >>> images = stroke_images(3)
    >>> tuple(images.shape), bool((images >= 0).all() and (images <= 1).all())
    ((3, 1, 28, 28), True)
    """
    rng = np.random.default_rng(seed)
    images = np.zeros((count, size, size))
    for image in images:
        for _ in range(rng.integers(1, 3)):
            np.maximum(image, _stroke(rng, size), out=image)
    return torch.from_numpy(images).float().unsqueeze(1)


def _stroke(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    control = size * rng.uniform(4 / 28, 24 / 28, size=(4, 2))
    t = np.linspace(0, 1, _POINTS)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3])
    y, x = (weights @ control).T
    width = size / 28 * rng.uniform(0.9, 1.6)
    pixels = np.arange(size) + 0.5
    distance = np.hypot(pixels[:, None, None] - y, pixels[None, :, None] - x).min(axis=2)
    return np.clip(1.5 - distance / width, 0, 1)
