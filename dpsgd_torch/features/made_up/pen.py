"""Signs drawn by a pen: smooth strokes through control points, bent at random, in ink."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Way = Sequence[Sequence[Floats]]
"""One way to write a sign: strokes, each of smooth pieces of (points, 2) control points x y from 0
to 10, y downwards. The pen is lifted between strokes; between pieces of one there is a corner."""

_POINTS = 96  # along a whole sign, at equal distances
_AT_ONCE = 250


def way(text: str) -> Way:
    """Written down: ``x y`` a control point, ``!`` a corner, ``/`` lifts the pen.

    >>> [len(stroke) for stroke in way("1 2 3 4 ! 3 4 5 5 / 0 0 9 9")]
    [2, 1]
    """
    return [
        [np.array(piece.split(), float).reshape(-1, 2) for piece in stroke.split("!")]
        for stroke in text.split("/")
    ]


def written(
    rng: np.random.Generator, which: Callable[[int], Way], signs: NDArray[np.int64], side: int
) -> torch.Tensor:
    """(n, 1, side, side) in [0, 1]: each sign in a way that ``which`` takes for it.

    Points are jittered, bent by two sinusoids, slanted, turned and stretched, by more or less an
    image. On side 28 they fill a box of some 20, centred by mass, drawn by a soft pen 2 to 4
    pixels wide that presses unevenly; smaller sides are shares of ink in the blocks of a bitmap
    four times as wide, which the sign fills.
    """
    if not len(signs):
        return torch.zeros(0, 1, side, side)
    points = np.stack([_bent(rng, _pieces(rng, which(sign))) for sign in signs])
    draw = _drawn if side >= 16 else _in_blocks
    parts = [points[at : at + _AT_ONCE] for at in range(0, len(points), _AT_ONCE)]
    images = np.concatenate([draw(rng, part, side) for part in parts])
    return torch.from_numpy(images).float().unsqueeze(1)


def _pieces(rng: np.random.Generator, strokes: Way) -> list[Floats]:
    """The jittered smooth pieces of one way to write it, each (points, 2)."""
    pieces = []
    loose = rng.uniform(0.15, 0.5)
    for stroke in strokes:
        moved = rng.normal(0, 0.3, 2)  # a stroke as a whole
        last: Floats | None = None
        for piece in stroke:
            control = piece + moved + rng.normal(0, loose, piece.shape)
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
    """(_POINTS, 2) along the lines, about 0, of height or width 1."""
    x, y = _along(pieces).T / 10 - 0.5
    wave = rng.normal(0, 0.035 * np.exp(rng.normal(0, 0.5)), (2, 2))
    phase = rng.uniform(0, 2 * np.pi, (2, 2))
    speed = rng.uniform(2, 7, (2, 2))
    x = x + wave[0, 0] * np.sin(speed[0, 0] * y + phase[0, 0])
    x = x + wave[0, 1] * np.sin(speed[0, 1] * x + phase[0, 1])
    y = y + wave[1, 0] * np.sin(speed[1, 0] * x + phase[1, 0])
    y = y + wave[1, 1] * np.sin(speed[1, 1] * y + phase[1, 1])
    x = x * np.exp(rng.normal(-0.1, 0.22)) - rng.normal(0.1, 0.25) * y
    turn = rng.normal(0, 0.1)
    ends = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    low, high = ends.min(axis=0), ends.max(axis=0)
    return np.asarray((ends - (low + high) / 2) / max((high - low).max(), 1e-6))


def _along(pieces: list[Floats]) -> Floats:
    """(_POINTS, 2) at equal distances along all pieces, one after another."""
    start = np.concatenate([piece[:-1] for piece in pieces])
    step = np.concatenate([np.diff(piece, axis=0) for piece in pieces])
    length = np.hypot(*step.T)
    until = np.cumsum(length)
    at = np.linspace(0, until[-1], _POINTS)
    on = np.minimum(np.searchsorted(until, at), len(until) - 1)
    share = 1 - (until[on] - at) / np.maximum(length[on], 1e-9)
    return np.asarray(start[on] + step[on] * np.clip(share, 0, 1)[:, None])


def _beyond(points: Floats, side: int, box: Floats, width: Floats) -> Floats:
    """(n, side, side): how far each pixel's centre lies beyond the ink's edge, in pixels.

    ``width`` is the ink's half-width at each point: (n, _POINTS).
    """
    at = torch.from_numpy(points * box[:, None, None] + side / 2).float()
    pixels = torch.arange(side) + 0.5
    x, y = ((pixels - at[:, :, i, None]).square_() for i in range(2))
    off = (x[:, :, None, :] + y[:, :, :, None]).sqrt_()
    found: Floats = off.sub_(torch.from_numpy(width).float()[:, :, None, None]).amin(1).numpy()
    return found


def _pressed(rng: np.random.Generator, width: Floats) -> Floats:
    """(n, _POINTS) half-widths that vary slowly along the sign."""
    n = len(width)
    turns, phase = rng.uniform(0.3, 2, (n, 1)), rng.uniform(0, 2 * np.pi, (n, 1))
    wave = np.sin(2 * np.pi * turns * np.linspace(0, 1, _POINTS) + phase)
    return np.asarray(width[:, None] * (1 + rng.uniform(0, 0.25, (n, 1)) * wave))


def _drawn(rng: np.random.Generator, points: Floats, side: int) -> Floats:
    """By a soft pen, and then centred by mass."""
    n, scale = len(points), side / 28
    width = scale * np.clip(rng.normal(1.35, 0.42, n), 0.6, 2.6)
    inside = 20 * scale - 2 * width * rng.uniform(0.3, 0.9, n)
    ink = np.clip(0.6 - _beyond(points, side, inside, _pressed(rng, width)), 0, 1)
    ink *= rng.uniform(0.85, 1.0, (n, 1, 1))
    place = np.arange(side) - (side - 1) / 2
    mass = ink.sum(axis=(1, 2))
    down = np.rint((ink.sum(axis=2) * place).sum(axis=1) / mass).astype(int)
    right = np.rint((ink.sum(axis=1) * place).sum(axis=1) / mass).astype(int)
    moved = [np.roll(i, (-d, -r), (0, 1)) for i, d, r in zip(ink, down, right, strict=True)]
    return np.stack(moved)


def _in_blocks(rng: np.random.Generator, points: Floats, side: int) -> Floats:
    """Shares of ink in blocks of 4×4 of a black and white picture."""
    n, fine = len(points), 4 * side
    width = fine / 32 * np.clip(rng.normal(2.4, 0.5, n), 1.2, 4)
    ink = _beyond(points, fine, fine - 2 * width, _pressed(rng, width)) < 0
    shares: Floats = ink.reshape(n, side, 4, side, 4).mean(axis=(2, 4))
    return shares
