"""Rows of a table that were looked up: a few of many, and no table an example."""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import together
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.parts.pieces import U64, pieces, real
from dpsgd_torch.gradients.parts.transposed import Transposed
from dpsgd_torch.gradients.parts.written import Written


class Tokens(Part):
    """Row i adds delta[i, t] to row indices[i, t] of a table (entries, d); index −1 adds nothing.

    ``indices`` (rows, T) int64 and ``delta`` (rows, T, d). The squared norm is that of the sums of
    equal words [the Gram matrix of Bu et al. 2023, word by word].
    """

    keeps_outer = True

    def __init__(
        self,
        indices: torch.Tensor,
        delta: torch.Tensor,
        entries: int,
        shape: torch.Size | None = None,
    ) -> None:
        none = indices < 0
        self.entries, self.indices = entries, indices.long()
        self.delta = real(delta)
        if none.any():
            self.delta = self.delta.masked_fill(none[..., None], 0.0)
        self.matrix = torch.Size((entries, delta.shape[2]))
        self.shape = self.matrix if shape is None else shape

    @property
    def count(self) -> int:
        return len(self.indices)

    def written(self) -> torch.Tensor:
        tables = self.delta.new_zeros(self.count, *self.matrix)
        at = self.places()[..., None].expand_as(self.delta)
        return tables.scatter_add_(1, at, self.delta).view(self.count, *self.shape)

    def places(self) -> torch.Tensor:
        """Indices, where one that adds nothing is 0: its delta is."""
        return self.indices.clamp(min=0)

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        squared = self.delta.new_zeros(self.count, dtype=torch.float64)
        sizes = torch.zeros_like(squared)
        steps, d = self.delta.shape[1:]
        for at in pieces(self.count, steps * d, self.delta.device):
            delta, places = self.delta[at].double(), self.places()[at]
            rows = torch.arange(len(delta), device=delta.device)[:, None]
            words, where = (rows * self.entries + places).flatten().unique(return_inverse=True)
            sums = delta.new_zeros(len(words), d).index_add_(0, where, delta.flatten(0, 1))
            of = words // max(1, self.entries)
            squared[at] = delta.new_zeros(len(delta)).index_add_(0, of, sums.square().sum(1))
            sizes[at] = delta.norm(dim=2).sum(1)
        off = sizes * (steps * U64)  # of the norm: words that cancel
        error = 2 * squared.sqrt() * off + off.square()
        return squared, error + squared * ((steps + d + 4) * U64)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        table, places = total.view(self.matrix), self.places()
        for at in pieces(self.count, self.delta[0:1].numel(), self.delta.device):
            delta = self.delta[at].double() * factors[at, None, None]
            table.index_add_(0, places[at].flatten(), delta.flatten(0, 1))
        return 0.0

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        delta = self.delta
        if weights is not None:
            delta = delta * weights[:, None, None].to(delta)
        indices = together(self.indices + 1, slots, count) - 1
        return Tokens(indices, together(delta, slots, count), self.entries, self.shape)

    def silenced(self, rows: torch.Tensor) -> Part:
        delta = self.delta.masked_fill(rows[:, None, None], 0.0)
        return Tokens(self.indices, delta, self.entries, self.shape)

    def widened(self, rows: torch.Tensor) -> Part:
        return Tokens(self.indices[rows], self.delta[rows].double(), self.entries, self.shape)

    def joined(self, other: Part) -> Part:
        from dpsgd_torch.gradients.parts.joint import joint

        if isinstance(other, Tokens) and (other.shape, other.matrix) == (self.shape, self.matrix):
            indices = torch.cat([self.indices, other.indices], 1)
            delta = torch.cat([self.delta, other.delta], 1)
            return Tokens(indices, delta, self.entries, self.shape)
        if isinstance(other, Outer) and (other.shape, other.matrix) == (self.shape, self.matrix):
            return joint(other, self)
        if other.keeps_outer and not isinstance(other, (Tokens, Transposed)):
            return other.joined(self)
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return Tokens(self.indices, self.delta, self.entries, shape)

    def transposed(self) -> Part:
        return Transposed(self)

    def nbytes(self) -> int:
        return self.delta.nbytes + self.indices.nbytes
