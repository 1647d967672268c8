"""Passes of one size, whoever was drawn: a batch is filled up by rows that count for nothing.

A matrix product blocks by its shape, so that in a batch of another size a row's values differ in
their last bits; where one of them is a ReLU's or a maximum's it may fall on the other side, and the
gradient is another by far more. In passes of one size a row's values hang on that row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Tree, first, length, taken
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.vectors import PerExample, Vectors


def filled(batch: Batch, size: int) -> Batch:
    """These rows, and copies of the first until there are ``size``; more are left as they are.

    >>> filled((torch.tensor([4, 5]), torch.tensor([0, 1])), 3)
    (tensor([4, 5, 4]), tensor([0, 1, 0]))
    """
    if length(batch[0]) >= size:
        return batch
    rows = torch.arange(size, device=first(batch).device)
    whole: Batch = taken(batch, rows.where(rows < length(batch[0]), 0))
    return whole


def rows_of_pass(batch_size: int, at_most: int, ranks: int = 1, *, above: float = 2.0) -> int:
    """Of which size each pass is: few are filled up by much, and few batches need one more.

    A Poisson batch of B in expectation is above B + 2√B in one step of forty, and above B + 1.5√B
    in one of fifteen.

    >>> rows_of_pass(256, 1024), rows_of_pass(256, 100), rows_of_pass(256, 1024, above=1.5)
    (288, 96, 280)
    """
    batch_size = -(-batch_size // ranks)
    likely = batch_size + above * math.sqrt(batch_size)
    passes = math.ceil(likely / at_most)
    return min(at_most, 8 * math.ceil(likely / passes / 8))


class FilledPasses:
    """Per-example gradients whose passes have ``size`` rows each (see ``PerExample``).

    A microbatch of more rows is a pass of its own, in which nobody else is.
    """

    def __init__(self, gradients: PerExample, size: int) -> None:
        self._gradients, self._size = gradients, size
        self._more = 0

    def backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """The sum of the losses of the rows that were given."""
        count, told = length(inputs), list[torch.Tensor]()
        self._more = max(0, self._size - count)
        if not self._more:
            return self._gradients.backward(loss, inputs, targets)

        def heard(outputs: Any, targets: Any) -> torch.Tensor:
            losses = loss(outputs, targets)
            told.append(losses.detach())
            return losses

        self._gradients.backward(heard, *filled((inputs, targets), self._size))
        return float(torch.cat(told)[-self._size :][:count].sum())  # it may take several passes

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Vectors:
        more, self._more = self._more, 0
        if not more:
            return self._gradients.vectors(params, slots, weights)
        count = self._size - more
        if slots is not None:  # the copies have one of their own
            count = int(slots.max()) + 1
            slots = torch.cat([slots, slots.new_full((more,), count)])
            weights = None if weights is None else torch.cat([weights, weights.new_ones(more)])
        return _FirstVectors(self._gradients.vectors(params, slots, weights), count)

    def cleanup(self) -> None:
        self._gradients.cleanup()


class _FirstVectors:
    """The vectors of the first slots; those of others are left out of every sum."""

    def __init__(self, vectors: Vectors, count: int) -> None:
        self._vectors, self._others = vectors, len(vectors.norms) - count
        self.norms, self.margin = vectors.norms[:count], vectors.margin
        self.norm, self.vector, self.norms_told = vectors.norm, vectors.vector, vectors.norms_told
        self.written, self.nbytes = vectors.written, vectors.nbytes

    def part(self, places: Sequence[int]) -> Vectors:
        return _FirstVectors(self._vectors.part(places), len(self.norms))

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        return self._vectors.add_to(sums, self._with_others(factors), within)

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        return self._vectors.totals(self._with_others(factors), within)

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        return self._vectors.one_by_one(self._with_others(factors), within, keep=keep)

    def _with_others(self, factors: torch.Tensor) -> torch.Tensor:
        return torch.cat([factors, factors.new_zeros(self._others)])
