"""Vectors to clip, of parts: norms add up over parameters, and each part adds its own sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from dpsgd_torch.gradients.parts.base import Part


class PartVectors:
    """Vectors of one part a parameter (see ``gradients.vectors.Vectors``).

    * An example whose gradient is not finite in any parameter counts as zero in all of them.
    * Examples that share a slot are added up in it, each times its weight, before its norm is had.
    """

    margin = 2.0**-9  # of the clip norm, kept back for what is not added up in float64

    def __init__(
        self,
        parts: Mapping[nn.Parameter, Part],
        params: Sequence[nn.Parameter],
        examples: int,
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> None:
        self._params, self._parts = params, dict(parts)
        self._examples = examples
        with torch.no_grad():
            self.norms = self._norms()
            if not torch.isfinite(self.norms).all():
                bad = ~torch.isfinite(self.norms)
                self._silence(bad)
                if slots is not None:
                    self.norms = self._norms()
            if slots is not None:
                count = int(slots.max()) + 1 if slots.numel() else 0
                self._parts = {
                    p: part.grouped(slots, weights, count) for p, part in self._parts.items()
                }
                self._examples = count
                self.norms = self._norms()
                if not torch.isfinite(self.norms).all():  # a sum of finite ones may not be
                    self._silence(~torch.isfinite(self.norms))

    def part(self, places: Sequence[int]) -> PartVectors:
        """The same vectors over some of the parameters alone, by their places."""
        part = object.__new__(PartVectors)
        part._params = [self._params[i] for i in places]
        part._parts = {p: self._parts[p] for p in part._params if p in self._parts}
        part._examples = self._examples
        part._squares = {p: self._squares[p] for p in part._parts}
        part.norms = part._added()
        return part

    @torch.no_grad()
    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        """Add Σ factor × vector; the L2 norm of what was rounded away, at most ``within``."""
        factors, spent = factors.double(), 0.0
        for total, p in zip(sums, self._params, strict=True):
            if p in self._parts:  # half of what is left to each: most take next to nothing
                allowed = math.sqrt(max(0.0, within**2 - spent) / 2)
                spent += self._parts[p].add_to(total, factors, allowed)
        return math.sqrt(spent)

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        found = list(self.one_by_one(factors, within))
        return [total for total, _ in found], math.sqrt(sum(error for _, error in found))

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        factors, spent = factors.double(), 0.0
        for p in self._params:
            allowed = math.sqrt(max(0.0, within**2 - spent) / 2)
            part = self._parts.get(p) if keep else self._parts.pop(p, None)
            with torch.no_grad():
                if part is None:
                    total, error = p.new_zeros(p.shape, dtype=torch.float64), 0.0
                else:
                    total, error = part.total(factors, allowed)
            part, spent = None, spent + error
            yield total, error

    @torch.no_grad()
    def norm(self, slot: int) -> float:
        row = torch.tensor([slot], device=self.norms.device)
        squares = (part.widened(row).squared_norms()[0] for part in self._parts.values())
        return math.sqrt(sum(float(square) for square in squares))

    def vector(self, slot: int) -> list[torch.Tensor]:
        return list(self.written(slot))

    def written(self, slot: int) -> Iterator[torch.Tensor]:
        row = torch.tensor([slot], device=self.norms.device)
        for p in self._params:
            with torch.no_grad():
                part = self._parts.get(p)
                yield (
                    torch.zeros(p.numel(), dtype=torch.float64, device=p.device)
                    if part is None
                    else part.widened(row).written().flatten()
                )

    @torch.no_grad()
    def norms_told(self, slot: int) -> list[float]:
        told = {p: part.squared_norms() for p, part in self._parts.items()}
        zero = torch.zeros(self._examples)
        found = (told.get(p, (zero, zero)) for p in self._params)
        return [math.sqrt(float(squared[slot] + error[slot])) for squared, error in found]

    def nbytes(self) -> int:
        return sum(part.nbytes() for part in self._parts.values())

    def _silence(self, rows: torch.Tensor) -> None:
        self._parts = {p: part.silenced(rows) for p, part in self._parts.items()}

    def _norms(self) -> torch.Tensor:
        told = {p: part.squared_norms() for p, part in self._parts.items()}
        self._squares = {p: square.double() + error.double() for p, (square, error) in told.items()}
        return self._added()

    def _added(self) -> torch.Tensor:
        device = self._params[0].device
        squared = torch.zeros(self._examples, dtype=torch.float64, device=device)
        for square in self._squares.values():
            squared += square
        return squared.sqrt().to(self._params[0].dtype)
