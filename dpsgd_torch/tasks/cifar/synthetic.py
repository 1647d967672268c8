"""Made-up coloured objects in CIFAR-10's form: ten shapes, each of hues of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.coloured import Canvas, Floats

LABELS = ("disc", "ring", "square", "frame", "bar", "cross", "triangle", "crescent", "pair", "dots")
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
    canvas.paint(_shape(canvas, name, x, y, size, angle), canvas.colour((middle, middle + 0.1)))
    return canvas.finished(float(rng.uniform(0.01, 0.06)))


def _shape(canvas: Canvas, name: str, x: float, y: float, size: float, angle: float) -> Floats:
    """Distance to the edge of what a class is called."""
    u, v = canvas.turned(x, y, angle)
    match name:
        case "disc":
            return canvas.ellipse(x, y, size, size, 0)
        case "ring":
            return np.abs(canvas.ellipse(x, y, size, size, 0)) - np.float32(0.25 * size)
        case "square":
            return canvas.box(x, y, 0.8 * size, 0.8 * size, angle)
        case "frame":
            return np.abs(canvas.box(x, y, 0.8 * size, 0.8 * size, angle)) - np.float32(0.2 * size)
        case "bar":
            return canvas.box(x, y, 1.2 * size, 0.25 * size, angle)
        case "cross":
            arms = (canvas.box(x, y, size, 0.25 * size, angle + turn) for turn in (0, np.pi / 2))
            return np.minimum(*arms)
        case "triangle":
            height = np.float32(0.55 * size)
            sides = (np.cos(turn) * u + np.sin(turn) * v for turn in (0, 2.0944, 4.1888))
            return np.maximum.reduce([*sides]).astype(np.float32) - height
        case "crescent":
            bitten = canvas.ellipse(
                x + 0.5 * size * np.cos(angle), y + 0.5 * size * np.sin(angle), size, size, 0
            )
            return np.maximum(canvas.ellipse(x, y, size, size, 0), -bitten)
        case "pair":
            apart = 0.6 * size
            ends = (
                canvas.ellipse(
                    x + side * apart * np.cos(angle), y + side * apart * np.sin(angle),
                    0.45 * size, 0.45 * size, 0,
                )
                for side in (-1, 1)
            )  # fmt: skip
            return np.minimum(*ends)
    period = np.float32(0.8 * size)
    folded = [np.mod(each, period) - period / 2 for each in (u, v)]
    dots = np.hypot(*folded) - np.float32(0.25 * size)
    return np.maximum(dots, canvas.box(x, y, 1.2 * size, 1.2 * size, angle)).astype(np.float32)
