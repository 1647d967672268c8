"""Sums of products of patches and output gradients: convolutions.

Held are what came in and what comes back; patches are views, copied for a few rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.outer import together
from dpsgd_torch.gradients.parts.written import Written

AT_ONCE = 1 << 24  # bytes of patches that are copied at a time: about a cache


@dataclass(frozen=True)
class Geometry:
    """How a kernel walks over its input."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def patches(self, x: torch.Tensor, places: torch.Size) -> torch.Tensor:
        """(rows, T, channels, *size) → a view (rows, T, channels, *places, *kernel)."""
        sides: list[int] = []
        for axis, (count, taps) in enumerate(zip(places, self.kernel, strict=True)):
            reach = (count - 1) * self.stride[axis] + (taps - 1) * self.dilation[axis] + 1
            before = self.padding[axis]
            sides = [before, max(0, reach - before - x.shape[axis + 3]), *sides]
        if any(sides):
            x = pad(x, sides)
        at, dims = x.stride(), range(3, x.dim())
        steps = [at[d] * self.stride[d - 3] for d in dims]
        apart = [at[d] * self.dilation[d - 3] for d in dims]
        shape = (*x.shape[:3], *places, *self.kernel)
        return x.as_strided(shape, (*at[:3], *steps, *apart))


class Convolution(Part):
    """Row i is Σ_t Σ_place back[i, t, :, place] ⊗ patch of x[i, t] at that place, in groups.

    ``x`` (rows, T, channels, *size) and ``back`` (rows, T, outputs, *places); of shape
    (outputs, channels ÷ groups, *kernel).
    """

    def __init__(self, x: torch.Tensor, back: torch.Tensor, geometry: Geometry) -> None:
        self.x, self.back, self.geometry = x, back, geometry
        inputs = x.shape[2] // geometry.groups
        self.shape = torch.Size((back.shape[2], inputs, *geometry.kernel))

    @property
    def count(self) -> int:
        return len(self.x)

    def written(self) -> torch.Tensor:
        found = self.x.new_empty(self.count, *self.shape)
        for rows in self._pieces():
            a, b = self._outer(self.x[rows], self.back[rows])
            found[rows] = (a @ b).view(-1, *self.shape)
        return found

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.x.new_empty(self.count, dtype=torch.float64)
        places = self.back.shape[1] * math.prod(self.back.shape[3:])
        taps = math.prod(self.shape[1:])
        outputs = self.shape[0] // self.geometry.groups
        for rows in self._pieces(2):
            a, b = self._outer(self.x[rows].double(), self.back[rows].double())
            if places * (outputs + taps) < outputs * taps:
                found[rows] = ((a.mT @ a) * (b @ b.mT)).sum((1, 2, 3))
            else:
                found[rows] = (a @ b).square().sum((1, 2, 3))
        squared = found.clamp(min=0).to(self.x.dtype)
        return squared, torch.zeros_like(squared)

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        weights = factors.view(-1, *(1,) * (self.back.dim() - 1))
        into = total.view(self.geometry.groups, -1, math.prod(self.shape[1:]))
        for rows in self._pieces(2):
            a, b = self._outer(self.x[rows].double(), self.back[rows] * weights[rows])
            into += (a @ b).sum(0)
        return 0.0

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        back = self.back
        if weights is not None:
            back = back * weights.view(-1, *(1,) * (back.dim() - 1))
        x = together(self.x, slots, count)
        return Convolution(x, together(back, slots, count), self.geometry)

    def silenced(self, rows: torch.Tensor) -> Part:
        mask = rows.view(-1, *(1,) * (self.x.dim() - 1))
        x, back = self.x.masked_fill(mask, 0.0), self.back.masked_fill(mask, 0.0)
        return Convolution(x, back, self.geometry)

    def widened(self, rows: torch.Tensor) -> Part:
        return Convolution(self.x[rows].double(), self.back[rows].double(), self.geometry)

    def joined(self, other: Part) -> Part:
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return self if shape == self.shape else Written(self.written()).viewed(shape)

    def transposed(self) -> Part:
        return Written(self.written()).transposed()

    def nbytes(self) -> int:
        return self.x.nbytes + self.back.nbytes

    def _pieces(self, wider: int = 1) -> Iterator[slice]:
        """Rows few enough that their patches may be copied."""
        places = self.back.shape[1] * math.prod(self.back.shape[3:])
        taps = self.x.shape[2] * math.prod(self.geometry.kernel)
        size = places * taps * self.x.element_size() * wider
        step = max(1, AT_ONCE // size)
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def _outer(self, x: torch.Tensor, back: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, groups, outputs, T × places) and (n, groups, T × places, taps)."""
        n, spatial, groups = len(x), x.dim() - 3, self.geometry.groups
        patches = self.geometry.patches(x, back.shape[3:])
        patches = patches.unflatten(2, (groups, -1))  # n, T, groups, channels, *places, *kernel
        places = list(range(4, 4 + spatial))
        taps = list(range(4 + spatial, 4 + 2 * spatial))
        ordered = patches.permute(0, 2, 1, *places, 3, *taps)
        b = ordered.reshape(n, groups, -1, math.prod(self.shape[1:]))
        grouped = back.unflatten(2, (groups, -1))  # n, T, groups, outputs, *places
        a = grouped.permute(0, 2, 3, 1, *places).reshape(n, groups, -1, b.shape[2])
        return a, b
