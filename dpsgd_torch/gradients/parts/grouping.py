"""Rows that share a slot, side by side or added up."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dpsgd_torch.gradients.parts.pieces import at_once


def together(values: torch.Tensor, slots: torch.Tensor, count: int) -> torch.Tensor:
    """(rows, T, *) → (count, most × T, *): the rows of a slot side by side, zeros after them."""
    sizes = torch.bincount(slots, minlength=count)
    most = int(sizes.max()) if count else 0
    place = torch.arange(len(slots), device=slots.device) - (sizes.cumsum(0) - sizes)[slots]
    padded = values.new_zeros(count, most, *values.shape[1:])
    padded[slots, place] = values
    return padded.flatten(1, 2)


def folded(
    rows: int,
    width: int,
    slots: torch.Tensor,
    count: int,
    written: Callable[[slice], torch.Tensor],
) -> torch.Tensor:
    """(count, width): rows that are ``written`` out some at a time, added up by slot."""
    sums: torch.Tensor | None = None
    size = max(1, at_once(slots.device) // max(1, width))
    for start in range(0, max(1, rows), size):
        at = slice(start, start + size)
        block = written(at).flatten(1)
        if sums is None:
            sums = block.new_zeros(count, block.shape[1])
        sums.index_add_(0, slots[at], block)
    assert sums is not None
    return sums
