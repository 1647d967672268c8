"""A table that is looked up and multiplied by: the tied head of a language model."""

from __future__ import annotations

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.parts.outer_norms import LOOSE
from dpsgd_torch.gradients.parts.pieces import U64, pieces
from dpsgd_torch.gradients.parts.tokens import Tokens
from dpsgd_torch.gradients.parts.transposed import Transposed
from dpsgd_torch.gradients.parts.written import Written


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
        if again.any() and self.outer.a.dtype == torch.float32:
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
