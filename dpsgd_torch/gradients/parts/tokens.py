"""Rows of a table that were looked up: a few of many, and no table an example."""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.outer import together
from dpsgd_torch.gradients.parts.written import Written


class Tokens(Part):
    """Row i adds delta[i, t] to row indices[i, t] of a table (entries, d); index −1 adds nothing.

    ``indices`` (rows, T) int64 and ``delta`` (rows, T, d).
    """

    def __init__(self, indices: torch.Tensor, delta: torch.Tensor, entries: int) -> None:
        self.indices, self.entries = indices, entries
        self.delta = delta.masked_fill((indices < 0)[..., None], 0.0)
        self.shape = torch.Size((entries, delta.shape[2]))

    @property
    def count(self) -> int:
        return len(self.indices)

    def written(self) -> torch.Tensor:
        tables = self.delta.new_zeros(self.count, *self.shape)
        at = self.indices.clamp(min=0)[..., None].expand_as(self.delta)
        return tables.scatter_add_(1, at, self.delta)

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        squared = self.written().double().square().sum((1, 2)).to(self.delta.dtype)
        return squared, torch.zeros_like(squared)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        delta = self.delta.double() * factors[:, None, None]
        total.index_add_(0, self.indices.clamp(min=0).flatten(), delta.flatten(0, 1))
        return 0.0

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        delta = self.delta if weights is None else self.delta * weights[:, None, None]
        indices = together(self.indices[..., None] + 1, slots, count)[..., 0] - 1
        return Tokens(indices, together(delta, slots, count), self.entries)

    def silenced(self, rows: torch.Tensor) -> Part:
        delta = self.delta.masked_fill(rows[:, None, None], 0.0)
        return Tokens(self.indices, delta, self.entries)

    def widened(self, rows: torch.Tensor) -> Part:
        return Tokens(self.indices[rows], self.delta[rows].double(), self.entries)

    def joined(self, other: Part) -> Part:
        if isinstance(other, Tokens):
            indices = torch.cat([self.indices, other.indices], 1)
            return Tokens(indices, torch.cat([self.delta, other.delta], 1), self.entries)
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return self if shape == self.shape else Written(self.written()).viewed(shape)

    def transposed(self) -> Part:
        return Written(self.written()).transposed()

    def nbytes(self) -> int:
        return self.delta.nbytes + self.indices.nbytes
