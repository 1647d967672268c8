"""Made-up things: a hundred objects that nobody makes, of rounded shapes drawn at random once.

Each class is a plan of up to five super-ellipses, and each image one built by it: parts moved,
stretched and of other greys, often patterned. No plan was chosen for what it looks like, and none
is a garment's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]

THINGS = 100
_PARTS = 5
_PLANS = 1729
_COARSE, _REACH = 24, 2.0  # of the grid on which a thing's box is found
_AT_ONCE = 500


def made_up_things(
    count: int,
    side: int = 28,
    seed: int = 0,
    *,
    classes: int = THINGS,
    plans: int = _PLANS,
    loose: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 1, side, side) in [0, 1] and (count,) classes; of one seed the same.

    Other ``plans`` are other things; the looser they are built, the more alike classes get.

    >>> images, things = made_up_things(3, side=8)
    >>> images.shape, things.shape
    (torch.Size([3, 1, 8, 8]), torch.Size([3]))
    """
    rng = np.random.default_rng([seed, side, 4])
    things = rng.integers(0, classes, count)
    plan = {name: each[things].astype(np.float32) for name, each in _plans(plans).items()}
    parts = []
    for at in range(0, count, _AT_ONCE):
        some = {name: each[at : at + _AT_ONCE] for name, each in plan.items()}
        parts.append(_drawn(rng, some, side, loose))
    images = np.concatenate(parts) if parts else np.zeros((0, side, side), np.float32)
    return torch.from_numpy(images).float().unsqueeze(1), torch.from_numpy(things)


@cache
def _plans(seed: int) -> dict[str, NDArray[np.float64]]:
    """By name, a value for each thing, or for each part of it."""
    rng = np.random.default_rng(seed)
    shape = (THINGS, _PARTS)
    hole = rng.random(shape) < 0.15
    hole[:, 0] = False
    smaller = np.where(hole, 0.4, 1)
    return {
        "parts": rng.integers(1, _PARTS + 1, THINGS).astype(float),
        "mirrored": (rng.random(THINGS) < 0.6).astype(float),
        "x": rng.uniform(-0.7, 0.7, shape),
        "y": rng.uniform(-0.7, 0.7, shape),
        "angle": np.where(rng.random(shape) < 0.5, 0, rng.uniform(0, np.pi, shape)),
        "wide": rng.uniform(0.15, 0.9, shape) * smaller,
        "tall": rng.uniform(0.15, 1.0, shape) * smaller,
        "power": rng.uniform(1, 6, shape),
        "hole": hole.astype(float),
        "grey": rng.uniform(0.3, 1, shape),
        "patterned": rng.uniform(0, 0.7, THINGS),
        "speed": rng.uniform(4, 30, THINGS),
    }


def _drawn(rng: np.random.Generator, plan: dict[str, Floats], side: int, loose: float) -> Floats:
    n = len(plan["parts"])
    plan = dict(plan)
    for name, spread in (("x", 0.07), ("y", 0.07), ("angle", 0.08)):
        plan[name] = plan[name] + rng.normal(0, loose * spread, (n, _PARTS)).astype(np.float32)
    for name, spread in (("wide", 0.18), ("tall", 0.18), ("power", 0.15)):
        plan[name] = plan[name] * np.exp(rng.normal(0, loose * spread, (n, _PARTS))).astype(
            np.float32
        )
    own = rng.uniform(0.2, 1, (n, _PARTS)).astype(np.float32)
    plan["grey"] = np.where(rng.random((n, 1)) < 0.5, own, own[:, :1] * plan["grey"])
    middle, scale = _box(plan)
    place = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    stretch = np.exp(rng.normal(0, 0.04, (2, n))).astype(np.float32)
    x = middle[0][:, None] + place * (scale * stretch[0])[:, None]
    y = middle[1][:, None] + place * (scale * stretch[1])[:, None]
    image = np.zeros((n, side, side), np.float32)
    for inside, part in _parts(plan, x, y, soft=side / 2 / scale):
        grey = plan["grey"][:, part] * (1 - plan["hole"][:, part])
        image += inside * (grey[:, None, None] - image)
    return _textured(rng, plan, image, x, y)


def _parts(
    plan: dict[str, Floats], x: Floats, y: Floats, soft: Floats
) -> Iterator[tuple[Floats, int]]:
    """Each part's coverage of each pixel, in turn: (n, rows, columns)."""
    mirrored = plan["mirrored"][:, None, None] > 0
    x = np.where(mirrored[:, 0], np.abs(x), x)
    for part in range(_PARTS):
        a, b, angle, wide, tall, power = (
            plan[name][:, part, None, None] for name in ("x", "y", "angle", "wide", "tall", "power")
        )
        across, down = x[:, None, :] - np.where(mirrored, np.abs(a), a), y[:, :, None] - b
        u = np.abs(across * np.cos(angle) + down * np.sin(angle)) / wide
        v = np.abs(down * np.cos(angle) - across * np.sin(angle)) / tall
        with np.errstate(over="ignore"):  # far outside is outside, also where it is no number
            beyond = (np.maximum(u, 1e-6) ** power + np.maximum(v, 1e-6) ** power) ** (1 / power)
        edge = (1 - beyond) * np.minimum(wide, tall) * soft[:, None, None] + 0.5
        yield np.clip(edge, 0, 1) * (part < plan["parts"])[:, None, None], part


def _box(plan: dict[str, Floats]) -> tuple[tuple[Floats, Floats], Floats]:
    """The middle (x, y) of what is seen, and half its longer side."""
    n = len(plan["parts"])
    place = np.linspace(-_REACH, _REACH, _COARSE, dtype=np.float32)
    grid = np.broadcast_to(place, (n, _COARSE))
    seen = np.zeros((n, _COARSE, _COARSE), np.float32)
    for inside, part in _parts(plan, grid, grid, soft=np.full(n, 3, np.float32)):
        seen += inside * (1 - plan["hole"][:, part, None, None] - seen)
    ends = []
    for axis in (1, 2):
        there: NDArray[np.bool_] = np.asarray((seen > 0.5).any(axis=axis))
        there[~there.any(axis=1)] = True
        low, high = there.argmax(axis=1), _COARSE - 1 - there[:, ::-1].argmax(axis=1)
        ends.append((place[low], place[high]))
    (left, right), (top, bottom) = ends
    half = np.maximum(right - left, bottom - top) / 2 + _REACH / _COARSE
    return ((left + right) / 2, (top + bottom) / 2), half


def _textured(
    rng: np.random.Generator, plan: dict[str, Floats], image: Floats, x: Floats, y: Floats
) -> Floats:
    """Stripes, grain and shade over what is not black."""
    n, side = len(image), image.shape[1]

    def column(values: Any) -> Floats:
        return np.asarray(values, np.float32)[:, None, None]

    angle = rng.choice([0, np.pi / 2, 0.8], n)
    along = x[:, None, :] * column(np.cos(angle)) + y[:, :, None] * column(np.sin(angle))
    wave = np.sin(along * plan["speed"][:, None, None] + column(rng.uniform(0, 6.3, n)))
    depth = column(rng.uniform(0.1, 0.6, n) * (rng.random(n) < plan["patterned"]))
    grain = rng.normal(0, 1, image.shape).astype(np.float32) * column(rng.uniform(0, 0.06, n))
    place = np.linspace(-1, 1, side, dtype=np.float32)
    across, down = (column(rng.normal(0, 0.12, n)) for _ in range(2))
    shade = 1 + across * place + down * place[:, None]
    found: Floats = np.clip((image * (1 + depth * wave) + grain * (image > 0.02)) * shade, 0, 1)
    return found
