"""Made-up coloured objects in CIFAR-10's form: ten shapes, each of hues of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.coloured import Canvas, Floats
from dpsgd_torch.tasks.shapes import SHAPES, shape

LABELS = SHAPES
_SIDE = 32


def synthetic_objects(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """(count, 3, 32, 32) in [0, 1] and classes, about as many of each; the same for one seed.

    Place, size, turn, lightness and what is behind are any; each shape has a tenth of the hues.

    >>> images, label = synthetic_objects(20, 0)
    >>> images.shape, np.bincount(label).tolist()
    ((20, 3, 32, 32), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(count) % len(LABELS)).astype(np.int64)
    images = [_object(rng, LABELS[which]) for which in label]
    return np.stack(images) if images else np.zeros((0, 3, _SIDE, _SIDE), np.float32), label


def _object(rng: np.random.Generator, name: str) -> Floats:
    canvas = Canvas(_SIDE, rng)
    size, angle = float(rng.uniform(0.5, 0.75)), float(rng.uniform(0, 2 * np.pi))
    x, y = (float(place) for place in rng.uniform(-0.3, 0.3, 2))
    middle = LABELS.index(name) / len(LABELS)
    canvas.picture *= np.float32(0.6)
    canvas.paint(shape(canvas, name, x, y, size, angle), canvas.colour((middle, middle + 0.1)))
    return canvas.finished(float(rng.uniform(0.01, 0.06)))
