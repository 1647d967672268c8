"""Made-up pictures with and without a figure like a person's among clutter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.coloured import Canvas, Floats
from dpsgd_torch.tasks.wake_words.model import SIDE

_NO_SKIN = (0.25, 0.85)  # hues from green to purple


def synthetic_figures(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """(count, 3, 96, 96) in [0, 1], and 1 where a figure stands, in half; the same for one seed.

    A figure is a head over a trunk with arms and legs, upright within a fifth of a radian, dressed
    in any colours; clutter is ellipses and boxes of any place, size and turn, and of no hue that a
    face or hand has: a much easier task than that of photographs.

    >>> images, label = synthetic_figures(4, 0)
    >>> images.shape, np.bincount(label).tolist()
    ((4, 3, 96, 96), [2, 2])
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(count) % 2).astype(np.int64)
    images = [_picture(rng, person=bool(each)) for each in label]
    return np.stack(images) if images else np.zeros((0, 3, SIDE, SIDE), np.float32), label


def _picture(rng: np.random.Generator, *, person: bool) -> Floats:
    canvas = Canvas(SIDE, rng, _NO_SKIN)
    for _ in range(rng.integers(2, 6)):
        _clutter(canvas)
    if person:
        _figure(canvas)
    else:
        for _ in range(3):
            _clutter(canvas)
    return canvas.finished(float(rng.uniform(0.01, 0.05)))


def _clutter(canvas: Canvas) -> None:
    rng = canvas.rng
    x, y, angle = (float(each) for each in rng.uniform((-1, -1, 0), (1, 1, np.pi)))
    wide, tall = (float(each) for each in rng.uniform(0.08, 0.5, 2))
    shape = canvas.ellipse if rng.random() < 0.5 else canvas.box
    canvas.paint(shape(x, y, wide, tall, angle), canvas.colour(_NO_SKIN))


def _figure(canvas: Canvas) -> None:
    rng = canvas.rng
    size = float(rng.uniform(0.7, 1.0))  # half of the height
    x, y, lean = (float(each) for each in rng.uniform((-0.5, -0.2, -0.2), (0.5, 0.2, 0.2)))
    coat, trousers = canvas.colour(), canvas.colour()
    shade = float(rng.uniform(0.3, 0.95))
    skin = shade * np.array([1.0, 0.78, 0.62], np.float32).reshape(3, 1, 1)

    def at(across: float, down: float) -> tuple[float, float]:
        a, b = across * size, down * size
        return x + a * np.cos(lean) - b * np.sin(lean), y + a * np.sin(lean) + b * np.cos(lean)

    for side in (-1, 1):
        stride, swing = (float(each) for each in rng.uniform(0.05, 0.35, 2))
        leg = canvas.box(*at(side * 0.13, 0.6), 0.09 * size, 0.4 * size, lean - side * stride)
        canvas.paint(leg, trousers)
        arm = canvas.box(*at(side * 0.28, -0.2), 0.06 * size, 0.36 * size, lean - side * swing)
        canvas.paint(arm, coat if rng.random() < 0.5 else skin)
    canvas.paint(canvas.box(*at(0, -0.15), 0.22 * size, 0.38 * size, lean), coat)
    canvas.paint(canvas.ellipse(*at(0, -0.75), 0.16 * size, 0.2 * size, lean), skin)
