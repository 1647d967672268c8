"""The sum of many parts of one tensor: those of a kind are put together once, not pair by pair."""

from __future__ import annotations

from collections.abc import Sequence

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.parts.tokens import Tokens
from dpsgd_torch.gradients.parts.written import Written


def summed(parts: Sequence[Part]) -> Part:
    """Row by row; a weight used at T steps is copied T times and not T² times."""
    kinds: dict[tuple[object, ...], list[Part]] = {}
    for part in parts:
        matrix = part.matrix if isinstance(part, (Outer, Tokens)) else None
        kinds.setdefault((type(part), part.shape, matrix), []).append(part)
    sums = []
    for (kind, *_), alike in kinds.items():
        if len(alike) > 1 and kind in (Outer, Tokens, Written):
            sums.append(alike[0].joined_all(alike[1:]))
        else:
            sums += alike
    total = sums[0]
    for part in sums[1:]:
        total = total.joined(part)
    return total
