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


def _digits(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.digits import made_up_digits

    return made_up_digits(count, side, seed)


def _objects(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.objects import made_up_objects

    return made_up_objects(count, side, seed)


def _leaves(count: int, side: int, seed: int) -> Made:
    from dpsgd_torch.features.made_up.leaves import dead_leaves

    return dead_leaves(count, side, seed)


MADE_UP: dict[str, MadeUp] = {
    "digits": MadeUp(
        _digits,
        "made-up digits, drawn by hand-written strokes: class knowledge of its author",
        knows_classes=True,
    ),
    "objects": MadeUp(_objects, "made-up objects of no known class: no class knowledge"),
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
