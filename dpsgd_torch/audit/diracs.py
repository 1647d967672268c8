"""Canaries' gradients: each along one coordinate of its own, far longer than the clip norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from dpsgd_torch.data.units import Indices
from dpsgd_torch.gradients.vectors import MARGIN, zeros


class Diracs:
    """Vectors that are ``height`` at one coordinate and 0 elsewhere, as ``Vectors`` are taken.

    Args:
        places: (slots,) coordinates, counted over all parameters in a row.
    """

    margin = MARGIN

    def __init__(self, params: Sequence[nn.Parameter], places: Indices, height: float) -> None:
        self._params, self._places, self._height = params, places, height
        device = params[0].device
        self.norms = torch.full((len(places),), height, dtype=torch.float32, device=device)

    def part(self, places: Sequence[int]) -> Diracs:
        raise NotImplementedError("a canary has one coordinate, in one group of them")

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        del within
        heights = (factors.double() * self._height).cpu()
        for total, inside, at in _split(self._params, self._places):
            place = torch.from_numpy(at).to(sums[total].device)
            values = heights[torch.from_numpy(inside)].to(sums[total])
            sums[total].view(-1).index_add_(0, place, values)
        return 0.0

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        return (sums := zeros(self._params)), self.add_to(sums, factors, within)

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        del keep  # there are few
        for total in self.totals(factors, within)[0]:
            yield total, 0.0

    def norm(self, slot: int) -> float:
        del slot
        return self._height

    def vector(self, slot: int) -> list[torch.Tensor]:
        written = zeros(self._params)
        for total, inside, at in _split(self._params, self._places[slot : slot + 1]):
            written[total].view(-1)[at[inside]] = self._height
        return [part.view(-1) for part in written]

    def written(self, slot: int) -> Iterator[torch.Tensor]:
        return iter(self.vector(slot))

    def norms_told(self, slot: int) -> list[float]:
        return [float(part.norm()) for part in self.vector(slot)]

    def nbytes(self) -> int:
        return int(self._places.nbytes)


def values_at(
    params: Sequence[nn.Parameter], tensors: Sequence[torch.Tensor], places: Indices
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(slots,) what tensors shaped like the parameters hold at these coordinates."""
    found = np.empty(len(places))
    for total, inside, at in _split(params, places):
        values = tensors[total].detach().reshape(-1)[torch.from_numpy(at).to(tensors[total].device)]
        found[inside] = values.double().cpu().numpy()
    return found


def _split(params: Sequence[nn.Parameter], places: Indices) -> list[tuple[int, Indices, Indices]]:
    """For each parameter that is met: its number, which slots meet it, and where."""
    starts = np.cumsum([0, *(p.numel() for p in params)])
    owner = np.searchsorted(starts, places, side="right") - 1
    return [
        (int(i), np.flatnonzero(owner == i), places[owner == i] - starts[i])
        for i in np.unique(owner)
    ]
