"""Parts taken apart into tensors, which a compiled function can return, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dpsgd_torch.gradients.parts import Part

_FOUND_LATER = ("_own", "_squares")  # what a part keeps of its own answers


@dataclass(frozen=True)
class Skeleton:
    """A part without its tensors: their places in a list, the skeletons within, and the rest."""

    kind: type[Part]
    tensors: dict[str, int]
    parts: dict[str, Skeleton]
    rest: dict[str, Any]

    def filled(self, tensors: Sequence[torch.Tensor]) -> Part:
        """The part, of other tensors of the same shapes."""
        part: Part = object.__new__(self.kind)
        held = vars(part)
        held.update(self.rest)
        held.update((name, tensors[at]) for name, at in self.tensors.items())
        held.update((name, within.filled(tensors)) for name, within in self.parts.items())
        return part


def taken_apart(part: Part, tensors: list[torch.Tensor]) -> Skeleton:
    """The part's skeleton; its tensors are added to the list.

    >>> from dpsgd_torch.gradients.parts import Written
    >>> skeleton = taken_apart(Written(torch.eye(2)), held := [])
    >>> skeleton.filled([2 * tensor for tensor in held]).written()
    tensor([[2., 0.],
            [0., 2.]])
    """
    places, parts, rest = dict[str, int](), dict[str, Skeleton](), dict[str, Any]()
    for name, value in vars(part).items():
        if name in _FOUND_LATER:
            rest[name] = None
        elif isinstance(value, torch.Tensor):
            places[name] = len(tensors)
            tensors.append(value)
        elif isinstance(value, Part):
            parts[name] = taken_apart(value, tensors)
        else:
            rest[name] = value
    return Skeleton(type(part), places, parts, rest)
