"""Which examples of a pass share a clip, and the norms of sums over them.

Examples that share a slot add up first: the norm of a sum of outer products a_i ⊗ b_i is
Σ (a_i · a_j)(b_i · b_j) over pairs of them [Lee, Kifer 2021].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-14}  # of a squared norm where sums cancel


@dataclass(frozen=True)
class Slots:
    """How the examples of a pass share slots: ascending slots from 0, or each its own (None)."""

    slots: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.weights is None else values * self.weights[:, None]

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, d) → (slots, d)."""
        if self.slots is None:
            return values
        count = int(self.slots[-1]) + 1
        return values.new_zeros(count, values.shape[1]).index_add_(0, self.slots, values)

    def repeated(self, times: int) -> Slots:
        """Each row so many times over: the steps of a sequence share its slot."""
        if self.slots is None:
            raise ValueError("slots = None: rows that are repeated share one; number them first")
        weights = None if self.weights is None else self.weights.repeat_interleave(times)
        return Slots(self.slots.repeat_interleave(times), weights)

    def paired(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(slots,) squared norms of Σ a ⊗ b over each slot's rows, and what they may err by.

        A square below the least float is lost, and the other factor can be large enough to make
        it count: each sum of squares is told with what it may have lost.
        """
        lost_a, lost_b = (v.shape[1] * torch.finfo(v.dtype).tiny for v in (a, b))
        if self.slots is None:
            squared = (a.square().sum(1) + lost_a) * (b.square().sum(1) + lost_b)
            return squared, torch.zeros_like(squared)
        counts = torch.bincount(self.slots)
        place = torch.arange(len(a), device=a.device) - (counts.cumsum(0) - counts)[self.slots]
        grams = []
        for values in (a, b):
            padded = values.new_zeros(len(counts), int(counts.max()), values.shape[1])
            padded[self.slots, place] = values
            grams.append(padded @ padded.mT)
        squared = (grams[0] * grams[1]).sum((1, 2)).clamp(min=0)
        of_a, of_b = (
            (gram.diagonal(dim1=1, dim2=2).clamp(min=0) + lost).sqrt()
            for gram, lost in zip(grams, (lost_a, lost_b), strict=True)
        )
        error = rounding(a.dtype) * (of_a * of_b).sum(1).square()
        lost = lost_a * of_b.sum(1).square() + lost_b * of_a.sum(1).square()
        return squared, error + 2 * lost


def rounding(dtype: torch.dtype) -> float:
    """By how much of the terms a squared norm may be too small where they cancel."""
    return _ROUNDING[dtype]
