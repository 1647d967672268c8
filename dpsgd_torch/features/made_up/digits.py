"""Made-up digits: strokes that the author wrote down by hand, bent at random.

They carry class knowledge, the author's: how each digit is written, in a few ways each. No
control point was taken from an image of any data set.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WRITTEN: dict[int, tuple[str, ...]] = {
    0: (
        "5 0 2 1 0 5 2 9 5 10 8 9 10 5 8 1 5 0",
        "6 0 3 1 2 5 2 8 4 10 6 9 8 6 8 2 6 0",
        "7 1 4 0 1 3 0 7 3 10 7 9 9 5 8 2 5 0",
        "4 0 1 3 1 8 4 10 8 8 9 3 6 0 3 1",
    ),
    1: (
        "5 0 5 3 5 7 5 10",
        "6 0 5 3 5 7 4 10",
        "3 2.5 4 1.5 5.2 0 ! 5.2 0 5 5 5 10",
        "3 2.5 5 0 ! 5 0 5 5 5 10 / 2.5 10 5 10 7.5 10",
        "4.4 0 4.8 5 5.4 10",
    ),
    2: (
        "1 2.5 3 0.3 6 0 8 2 7 5 4 8 1 10 ! 1 10 5 10 9 10",
        "1 2 4 0 8 1 8 4 5 7.5 2 9.5 1.5 8.5 3 8 6 9.5 9 10",
        "2 1 5 0 8 2 7 5 3 9 1 9.5 1 8 3 8 5 9.5 8 10 10 9",
        "1 1 5 0 8 1.5 7.5 4 4 7 0.5 10 ! 0.5 10 4 9.6 9.5 9.7",
    ),
    3: (
        "1.5 1 4.5 0 7.5 1.5 6.5 4 4 4.8 ! 4 4.8 7 5.5 8.5 7.5 6 10 3 10 1 8.7",
        "2 0.7 6 0 8 2 5.5 4.5 3.5 5 6.5 5.2 8.5 7 7 9.5 4 10 1.5 9",
        "1.5 0 4 0 8 0 ! 8 0 6 2.5 4 4.3 ! 4 4.3 7.5 5 8.5 7.5 6 10 1.5 9.2",
        "2 1 5 0 7.5 1 7 3.5 4.5 4.7 7.5 5.5 8 8 5 10 1 9.5",
    ),
    4: (
        "2.5 0.5 2 3 1.5 5.5 ! 1.5 5.5 5 5.4 9 5 / 7 0 6.8 5 6.5 10",
        "6.5 0 4 3 1 6.5 ! 1 6.5 5 6.5 9.5 6.5 / 6.5 0 6.5 5 6.5 10",
        "2 0 1.2 3 2 5 5 5.3 8 4.3 / 8.2 0.3 7.8 5 7.4 10",
        "6.5 0 3.5 3 1 6 ! 1 6 5 6 9 5.8 / 6.4 2.8 6 6 5.6 10",
        "1.5 1 1.5 4 3 5.5 6 5 7.5 2.5 ! 8 0.5 7.5 5 7 10",
    ),
    5: (
        "8.5 0 5 0.2 2.5 0.3 ! 2.5 0.3 2 2.5 1.8 4.3 ! 1.8 4.3 5 3.7 8.2 5.5 7.5 9 4 10 1 9",
        "2.5 0.5 2.2 2.5 2 4.5 ! 2 4.5 5 4 8 6 7 9 4 10 1 9.3 / 2.5 0.5 5 0.3 9 0",
        "9 0 6 0.3 4 1 3 3.5 5 5 7 6.5 6.5 9 4 10 1 9.5",
        "8 0 5 0.4 3 0.6 ! 3 0.6 2.5 4 ! 2.5 4 6 4.5 7.5 7 5.5 9.5 2 10",
    ),
    6: (
        "7 0 4 2 2 5 1.5 8 4 10 7 9 8 6.8 6 5.2 3 6 1.8 8",
        "5.5 0 3 3 1.8 6.5 3 9.5 6 9.8 7.5 7.5 5.5 5.8 3 7 2.3 8.7",
        "3.5 0 2 4 1.8 8 4 10 7 9.5 8.2 7.5 6 6 3.5 6.8 2 8.5",
        "8 0.5 5 1 2.5 4 2 7.5 4.5 10 7.5 8.5 7.5 6 5 5.4 2.4 6.8",
    ),
    7: (
        "1 0.5 4.5 0.4 8.5 0.2 ! 8.5 0.2 6.5 4 5 7 4 10",
        "1.5 1.5 1.5 0.2 ! 1.5 0.2 5 0.3 8.5 0.3 ! 8.5 0.3 6 5 5 10",
        "1 0.5 5 0.4 8.5 0.2 ! 8.5 0.2 6.5 4 5 7 4 10 / 3 5.2 5.5 5 8 4.8",
        "1 1.5 3 0.3 6 0.6 8.5 0.2 ! 8.5 0.2 7.5 3 7 6 6.8 10",
    ),
    8: (
        "7.5 1.5 5 0 2.5 1.5 3 3.5 5.5 5 7.5 7 7 9.3 4.5 10 2 8.7 2.5 6.5 5 5 7.5 3 7.5 1.2",
        "5 4.7 3 3.5 2.7 1.2 5 0 7.3 1.2 7 3.5 5 4.7 2.5 6 2 8.5 5 10 8 8.5 7.5 6 5 4.7",
        "8 1 5 0 3 1.8 4 4 6.5 6 6.8 8.8 4.5 10 2.5 8.5 4 6 6.5 3.5 8 1",
        "6 4.5 3.5 3.7 3 1.3 5.5 0 8 1.2 7.5 3.5 4.5 5.5 2.3 7.8 3.5 10 6 9.3 6.5 7 5 4.7",
    ),
    9: (
        "7.7 2 5.5 0 2.5 1.2 2 3.7 4 5 6.5 4.2 7.7 2 ! 7.7 2 7.4 6 7 10",
        "7.5 1 5 0 2.3 1.8 2.8 4.3 5.5 4.6 7.3 2.5 7.5 1 ! 7.5 1 7.8 5 6.5 9 3.5 10",
        "7 1.2 4.5 0.2 2 2.4 3 4.8 6 4 7.3 1.2 ! 7.3 1.2 6.5 5.5 5 10",
        "8 2.5 6 0 3 1 2.5 3.5 5 4.6 7.5 3.3 8 1 ! 8 1.5 8 6 7.8 10",
    ),
}
"""Ways to write each digit: control points x y from 0 to 10, y downwards, of a smooth curve; ``!``
is a corner, ``/`` lifts the pen."""

_POINTS = 64  # along a whole digit
_AT_ONCE = 500


def made_up_digits(count: int, side: int = 28, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 1, side, side) in [0, 1] and (count,) digits; the same for one seed.

    Points are jittered, bent by two sinusoids, slanted, turned and stretched. On side 28 they
    fill a box of some 20, centred by mass, drawn by a soft pen 2 to 4 pixels wide; smaller sides
    are shares of ink in the blocks of a bitmap four times as wide, which the digit fills.

    >>> images, digits = made_up_digits(3, side=8)
    >>> images.shape, digits.shape, 0 <= images.min() < images.max() <= 1
    (torch.Size([3, 1, 8, 8]), torch.Size([3]), tensor(True))
    """
    rng = np.random.default_rng([seed, side])
    digits = rng.integers(0, 10, count)
    points = np.stack([_bent(rng, _points(rng, digit)) for digit in digits]) if count else None
    if points is None:
        return torch.zeros(0, 1, side, side), torch.zeros(0, dtype=torch.long)
    parts = [points[at : at + _AT_ONCE] for at in range(0, count, _AT_ONCE)]
    draw = _drawn if side >= 16 else _in_blocks
    images = np.concatenate([draw(rng, part, side) for part in parts])
    return torch.from_numpy(images).float().unsqueeze(1), torch.from_numpy(digits)


def _points(rng: np.random.Generator, digit: int) -> list[Floats]:
    """The jittered smooth pieces of one way to write it, each (points, 2)."""
    ways = WRITTEN[digit]
    pieces = []
    for stroke in ways[rng.integers(len(ways))].split("/"):
        moved = rng.normal(0, 0.25, 2)  # a stroke as a whole
        last: Floats | None = None
        for piece in stroke.split("!"):
            control = np.array(piece.split(), float).reshape(-1, 2) + moved
            control += rng.normal(0, 0.32, control.shape)
            if last is not None:
                control[0] = last  # a corner stays one
            last = control[-1]
            pieces.append(_smooth(control))
    return pieces


def _smooth(control: Floats) -> Floats:
    """A Catmull-Rom curve through the points, 8 a span."""
    if len(control) < 2:
        return control
    ends = [2 * control[:1] - control[1:2], control, 2 * control[-1:] - control[-2:-1]]
    p = np.concatenate(ends)
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    spans = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([spans.transpose(1, 0, 2).reshape(-1, 2), control[-1:]])


def _bent(rng: np.random.Generator, pieces: list[Floats]) -> Floats:
    """(_POINTS, 4) pieces of line x0, y0, x1, y1, about 0, of height or width 1."""
    pairs = np.concatenate([np.hstack([piece[:-1], piece[1:]]) for piece in pieces]) / 10 - 0.5
    ends = pairs.reshape(-1, 2)
    wave = rng.normal(0, 0.03, (2, 2))
    phase = rng.uniform(0, 2 * np.pi, (2, 2))
    speed = rng.uniform(2, 7, (2, 2))
    x, y = ends.T
    x = x + wave[0, 0] * np.sin(speed[0, 0] * y + phase[0, 0])
    x = x + wave[0, 1] * np.sin(speed[0, 1] * x + phase[0, 1])
    y = y + wave[1, 0] * np.sin(speed[1, 0] * x + phase[1, 0])
    y = y + wave[1, 1] * np.sin(speed[1, 1] * y + phase[1, 1])
    x = x * np.exp(rng.normal(-0.1, 0.18)) - rng.normal(0.1, 0.22) * y
    turn = rng.normal(0, 0.1)
    ends = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    low, high = ends.min(axis=0), ends.max(axis=0)
    ends = (ends - (low + high) / 2) / (high - low).max()
    pairs = ends.reshape(-1, 4)
    if len(pairs) < _POINTS:  # the last again: a distance to the nearest does not change
        pairs = np.concatenate([pairs, np.repeat(pairs[-1:], _POINTS - len(pairs), axis=0)])
    return pairs[np.linspace(0, len(pairs) - 1, _POINTS).round().astype(int)]


def _distance(pairs: Floats, side: int, box: Floats) -> Floats:
    """(n, side, side) from each pixel's centre to the nearest piece of line, in pixels."""
    lines = (pairs * box[:, None, None] + side / 2).astype(np.float32)
    pixels = np.arange(side, dtype=np.float32) + 0.5
    x0, y0, x1, y1 = (lines[:, :, i, None, None] for i in range(4))
    dx, dy = x1 - x0, y1 - y0
    along = (pixels - x0) * dx + (pixels[:, None] - y0) * dy
    along = np.clip(along / np.maximum(dx * dx + dy * dy, 1e-6), 0, 1)
    off = (pixels - x0 - along * dx) ** 2 + (pixels[:, None] - y0 - along * dy) ** 2
    found: Floats = np.sqrt(off.min(axis=1))
    return found


def _drawn(rng: np.random.Generator, pairs: Floats, side: int) -> Floats:
    """By a soft pen, and then centred by mass."""
    n, scale = len(pairs), side / 28
    width = scale * np.clip(rng.normal(1.35, 0.4, n), 0.6, 2.6)[:, None, None]
    inside = 20 * scale - 2 * width[:, 0, 0] * rng.uniform(0.3, 0.9, n)
    ink = np.clip(width - _distance(pairs, side, inside) + 0.6, 0, 1)
    ink *= rng.uniform(0.85, 1.0, (n, 1, 1))
    place = np.arange(side) - (side - 1) / 2
    mass = ink.sum(axis=(1, 2))
    down = np.rint((ink.sum(axis=2) * place).sum(axis=1) / mass).astype(int)
    right = np.rint((ink.sum(axis=1) * place).sum(axis=1) / mass).astype(int)
    moved = [np.roll(i, (-d, -r), (0, 1)) for i, d, r in zip(ink, down, right, strict=True)]
    return np.stack(moved)


def _in_blocks(rng: np.random.Generator, pairs: Floats, side: int) -> Floats:
    """Shares of ink in blocks of 4×4 of a black and white picture."""
    n, fine = len(pairs), 4 * side
    width = fine / 32 * np.clip(rng.normal(2.4, 0.5, n), 1.2, 4)[:, None, None]
    box = fine - 2 * width[:, 0, 0]
    ink = _distance(pairs, fine, box) < width
    shares: Floats = ink.reshape(n, side, 4, side, 4).mean(axis=(2, 4))
    return shares
