"""Loss scaling [Micikevicius et al. 2018, Section 3.2], taken back before anything is clipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from dpsgd_torch.gradients.vectors import Vectors


class Unscaled:
    """Vectors of losses that were multiplied by a scale: each is its own ÷ scale.

    The scale is a power of 2, by which norms and factors are divided exactly: the norm that is
    clipped by is that of what is summed, to the last bit that it was before.
    """

    def __init__(self, vectors: Vectors, scale: float) -> None:
        self._vectors, self._scale = vectors, scale
        self.norms, self.margin = vectors.norms / scale, vectors.margin

    def part(self, places: Sequence[int]) -> Unscaled:
        return Unscaled(self._vectors.part(places), self._scale)

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        return self._vectors.add_to(sums, factors.double() / self._scale, within)

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        return self._vectors.totals(factors.double() / self._scale, within)

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        return self._vectors.one_by_one(factors.double() / self._scale, within, keep=keep)

    def norm(self, slot: int) -> float:
        return self._vectors.norm(slot) / self._scale

    def vector(self, slot: int) -> list[torch.Tensor]:
        return list(self.written(slot))

    def written(self, slot: int) -> Iterator[torch.Tensor]:
        return (part / self._scale for part in self._vectors.written(slot))

    def norms_told(self, slot: int) -> list[float]:
        return [told / self._scale for told in self._vectors.norms_told(slot)]

    def nbytes(self) -> int:
        return self._vectors.nbytes()
