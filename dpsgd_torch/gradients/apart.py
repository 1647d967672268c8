"""Vectors whose groups of parameters are multiplied by factors of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from dpsgd_torch.gradients.vectors import Summed, Vectors


class Apart(Summed):
    """Groups of vectors, each with its factors; what a sum is asked by multiplies them all.

    Args:
        places: of each group's parameters among all.
        groups: the vectors of each group alone.
        factors: (slots,) of each group.
    """

    def __init__(
        self,
        places: Sequence[Sequence[int]],
        groups: Sequence[Vectors],
        factors: Sequence[torch.Tensor],
    ) -> None:
        self._places, self._groups, self._factors = places, groups, factors

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        each, spent = within / math.sqrt(len(self._groups)), 0.0
        for places, group, own in zip(self._places, self._groups, self._factors, strict=True):
            spent += group.add_to([sums[place] for place in places], own * factors, each) ** 2
        return math.sqrt(spent)

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        found = list(self.one_by_one(factors, within))
        return [total for total, _ in found], math.sqrt(sum(error for _, error in found))

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        each = within / math.sqrt(len(self._groups))
        begun = [
            group.one_by_one(own * factors, each, keep=keep)
            for group, own in zip(self._groups, self._factors, strict=True)
        ]
        owner = {place: number for number, places in enumerate(self._places) for place in places}
        for place in sorted(owner):
            yield next(begun[owner[place]])
