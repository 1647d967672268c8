"""The registry of made-up images, and what each knows of the classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpsgd_torch.errors import ConfigError

if TYPE_CHECKING:
    import torch

    Made = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class MadeUp:
    """Images made without data: (count, side, seed) → images and, where they have any, classes."""

    make: Callable[[int, int, int], Made]
    prior: str
    knows_classes: bool = False
    classes: int = 0
    """How many of its own; 0: it has none."""


def _digits(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.digits import made_up_digits

    return made_up_digits(count, side, seed)


def _objects(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.objects import made_up_objects

    return made_up_objects(count, side, seed)


def _leaves(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.leaves import dead_leaves

    return dead_leaves(count, side, seed)


def _signs(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.signs import made_up_signs

    return made_up_signs(count, side, seed)


def _things(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.things import made_up_things

    return made_up_things(count, side, seed)


MADE_UP: dict[str, MadeUp] = {
    "digits": MadeUp(
        _digits,
        "made-up digits, drawn by hand-written strokes: class knowledge of its author",
        knows_classes=True,
        classes=10,
    ),
    "signs": MadeUp(
        _signs,
        "made-up signs, strokes drawn at random that nobody writes: no class knowledge",
        classes=100,
    ),
    "objects": MadeUp(_objects, "made-up objects of no known class: no class knowledge"),
    "things": MadeUp(
        _things,
        "made-up things, of a hundred plans drawn at random: no class knowledge",
        classes=100,
    ),
    "leaves": MadeUp(_leaves, "dead leaves, a made-up texture: no class knowledge"),
}
NONE = "none"


def made_up(name: str) -> MadeUp:
    """The made-up images of that name.

    Raises:
        ConfigError: none is known by it.
    """
    if name not in MADE_UP:
        raise ConfigError(f"made_up = {name}: must be one of {', '.join(MADE_UP)}")
    return MADE_UP[name]


def labelled(name: str) -> MadeUp:
    """The made-up images of that name, which have classes of their own to learn.

    Raises:
        ConfigError: they have none.
    """
    found = made_up(name)
    if not found.classes:
        have = ", ".join(each for each, kind in MADE_UP.items() if kind.classes)
        raise ConfigError(f"pretrained_on = {name}: has no classes to learn; take one of {have}")
    return found
