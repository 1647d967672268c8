"""Rows of a table that were looked up: a few of many, and no table an example.

The table may be multiplied by as well: the tied head of a language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import together
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.parts.outer_norms import LOOSE
from dpsgd_torch.gradients.parts.pieces import U64, pieces, real
from dpsgd_torch.gradients.parts.tracing import any_of, is_traced
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
        if is_traced() or none.any():
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
        if self._is_like(other):
            return self.joined_all([other])
        if isinstance(other, Outer) and (other.shape, other.matrix) == (self.shape, self.matrix):
            return joint(other, self)
        if other.keeps_outer and not isinstance(other, (Tokens, Transposed)):
            return other.joined(self)
        return Written(self.written()).joined(other)

    def joined_all(self, others: Sequence[Part]) -> Part:
        alike = [other for other in others if isinstance(other, Tokens) and self._is_like(other)]
        if len(alike) < len(others):
            return super().joined_all(others)
        indices = torch.cat([one.indices for one in (self, *alike)], 1)
        delta = torch.cat([one.delta for one in (self, *alike)], 1)
        return Tokens(indices, delta, self.entries, self.shape)

    def _is_like(self, other: Part) -> bool:
        same = isinstance(other, Tokens) and other.matrix == self.matrix
        return same and other.shape == self.shape

    def viewed(self, shape: torch.Size) -> Part:
        return Tokens(self.indices, self.delta, self.entries, shape)

    def transposed(self) -> Part:
        return Transposed(self)

    def nbytes(self) -> int:
        return self.delta.nbytes + self.indices.nbytes


def joint(outer: Outer, tokens: Tokens) -> Part:
    """Both kept, or their sum written out where that holds less."""
    kept = tokens.delta.shape[1] * (tokens.delta.shape[2] + 1)
    if outer.written_is_less(and_kept=kept):
        return Written(outer.written()).joined(tokens)
    return Joint(outer, tokens)


class Joint(Part):
    """Row i is Σ_t a[i, t] ⊗ b[i, t] plus delta[i, s] in row indices[i, s].

    The squared norm is that of either plus 2 Σ_{t,s} a[t, index_s] (b_t · δ_s).
    """

    keeps_outer = True

    def __init__(self, outer: Outer, tokens: Tokens) -> None:
        self.outer, self.tokens, self.shape = outer, tokens, tokens.shape

    @property
    def count(self) -> int:
        return self.tokens.count

    def written(self) -> torch.Tensor:
        return self.outer.written() + self.tokens.written()

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        (of_outer, lost), (of_tokens, lost_too) = (
            part.squared_norms() for part in (self.outer, self.tokens)
        )
        cross, size = self._crossed()
        squared = (of_outer + of_tokens + 2 * cross).clamp(min=0)
        rounding = U64 * (4 * (of_outer + of_tokens) + 2 * size)
        error = lost + lost_too + rounding
        again = ~(error <= LOOSE * squared)
        if any_of(again) and self.outer.a.dtype == torch.float32:
            squared[again], error[again] = self.widened(again).squared_norms()
        return squared, error

    def _crossed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """⟨outer, tokens⟩ of each row in float64, and what its rounding is relative to."""
        a, b, delta = self.outer.a, self.outer.b, self.tokens.delta
        places = self.tokens.places()
        cross = a.new_zeros(self.count, dtype=torch.float64)
        size = torch.zeros_like(cross)
        steps, words, d = a.shape[1], *delta.shape[1:]
        for at in pieces(self.count, steps * words + (steps + words) * d, a.device):
            where = places[at, None, :].expand(-1, steps, -1)
            found = a[at].gather(2, where).double()
            other = b[at].double() @ delta[at].double().mT
            cross[at] = (found * other).sum((1, 2))
            sizes = b[at].double().norm(dim=2)[:, :, None] * delta[at].double().norm(dim=2)[:, None]
            size[at] = (found.abs() * sizes).sum((1, 2))
        return cross, size * (d + steps * words + 4)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        error = self.outer.add_to(total, factors, within)
        return error + self.tokens.add_to(total, factors, within)

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        tokens = self.tokens.grouped(slots, weights, count)
        return self.outer.grouped(slots, weights, count).joined(tokens)

    def silenced(self, rows: torch.Tensor) -> Part:
        return self._each(self.outer.silenced(rows), self.tokens.silenced(rows))

    def widened(self, rows: torch.Tensor) -> Part:
        return self._each(self.outer.widened(rows), self.tokens.widened(rows))

    def joined(self, other: Part) -> Part:
        if isinstance(other, Joint) and other.shape == self.shape:
            return self.joined(other.outer).joined(other.tokens)
        if isinstance(other, Outer) and other.matrix == self.outer.matrix:
            return self.outer.joined(other).joined(self.tokens)
        if isinstance(other, Tokens) and other.matrix == self.tokens.matrix:
            return self.outer.joined(self.tokens.joined(other))
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return self._each(self.outer.viewed(shape), self.tokens.viewed(shape))

    def transposed(self) -> Part:
        return Transposed(self)

    def nbytes(self) -> int:
        return self.outer.nbytes() + self.tokens.nbytes()

    @staticmethod
    def _each(outer: Part, tokens: Part) -> Joint:
        assert isinstance(outer, Outer)
        assert isinstance(tokens, Tokens)
        return Joint(outer, tokens)
