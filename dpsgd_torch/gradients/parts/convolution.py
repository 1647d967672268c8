"""Sums of products of patches and output gradients: convolutions.

Held are what came in and what comes back; patches are copied for a few rows at a time. The norm is
that of the Gram matrices over places where those are few [Li et al. 2022, "ghost clipping"], else
of gradients written out; a weighted sum over examples is one weight gradient of rescaled output
gradients [Bu et al. 2023, "book-keeping"].
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import together
from dpsgd_torch.gradients.parts.patches import Geometry
from dpsgd_torch.gradients.parts.written import Written

AT_ONCE = 1 << 22  # bytes of patches or gradients that are written at a time
FEW_PLACES = 20  # below, a product of patches is faster than the library's weight gradient
PROBES = 4


class Convolution(Part):
    """Row i is Σ_t Σ_place back[i, t, :, place] ⊗ patch of x[i, t] at that place, in groups.

    ``x`` (rows, T, channels, *size) and ``back`` (rows, T, outputs, *places); of shape
    (outputs, channels ÷ groups, *kernel).
    """

    def __init__(self, x: torch.Tensor, back: torch.Tensor, geometry: Geometry) -> None:
        self.x, self.back, self.geometry = x, back, geometry
        inputs = x.shape[2] // geometry.groups
        self.shape = torch.Size((back.shape[2], inputs, *geometry.kernel))
        cut, seen = geometry.seeing(x.shape[3:], back.shape[3:])
        self._cut, self._seen = cut, (slice(None), slice(None), *seen)
        self._places = back.shape[1] * math.prod(back.shape[3:])
        self._depth = inputs * cut.taps  # values of a patch that an output sees
        self._usual = cut.is_usual(x.shape[3:], back.shape[3:])

    @property
    def count(self) -> int:
        return len(self.x)

    def few(self) -> bool:
        """Whether gradients that are written out are about as few as what they are made of."""
        held = self.x[:1].numel() + self.back[:1].numel()
        return self.shape.numel() <= 2 * held

    def written(self) -> torch.Tensor:
        if self._cut == self.geometry:
            found = self.x.new_empty(self.count, *self.shape)
        else:
            found = self.x.new_zeros(self.count, *self.shape)
        for rows in self._pieces(self.x.element_size()):
            found[(rows, *self._seen)] = self._written(rows)
        return found

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, groups = self.shape[0] // self._cut.groups, self._cut.groups
        if 3 * self._places * (outputs + self._depth) < outputs * self._depth:
            found = self.x.new_empty(self.count, dtype=torch.float64)
            for rows in self._pieces(8):
                b = self._columns(self.x[rows].double()).flatten(0, 1)
                a = self._outputs(self.back[rows].double()).unflatten(1, (groups, -1)).flatten(0, 1)
                grams = (a.mT @ a) * (b.mT @ b)
                found[rows] = grams.view(-1, groups, self._places**2).sum((1, 2))
            squared = found.clamp(min=0).to(self.x.dtype)
            return squared, torch.zeros_like(squared)
        squared = self.x.new_empty(self.count)
        for rows in self._pieces(self.x.element_size()):
            squared[rows] = torch.linalg.vector_norm(self._written(rows).flatten(1), dim=1).square()
        # Of K terms in any order each rounds: √K of them in the mean [Higham and Mary 2019].
        each = 4 * math.sqrt(self._places) * torch.finfo(squared.dtype).eps
        sizes = [v.flatten(1).square().sum(1) for v in (self.x, self.back)]
        off = each * (sizes[0] * sizes[1] * self._cut.taps).sqrt()
        lost = self.shape.numel() * torch.finfo(squared.dtype).tiny
        return squared, off * (2 * squared.sqrt() + off) + lost

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        if within > 0 and self._float32_pays():
            found = self._product(self.x, self._scaled(factors).float())
            error = self._measured(found, factors)
            if error <= within**2:
                total[self._seen] += found
                return error
        total[self._seen] += self._sum(self.x, factors)
        return 0.0

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        back = self.back if weights is None else self._scaled(weights)
        x = together(self.x, slots, count)
        return Convolution(x, together(back, slots, count), self.geometry)

    def silenced(self, rows: torch.Tensor) -> Part:
        mask = rows.view(-1, *(1,) * (self.x.dim() - 1))
        x, back = self.x.masked_fill(mask, 0.0), self.back.masked_fill(mask, 0.0)
        return Convolution(x, back, self.geometry)

    def widened(self, rows: torch.Tensor) -> Part:
        return Convolution(self.x[rows].double(), self.back[rows].double(), self.geometry)

    def joined(self, other: Part) -> Part:
        if isinstance(other, Convolution) and self._walks_as(other):
            x, back = torch.cat([self.x, other.x], 1), torch.cat([self.back, other.back], 1)
            return Convolution(x, back, self.geometry)
        return Written(self.written()).joined(other)

    def viewed(self, shape: torch.Size) -> Part:
        return self if shape == self.shape else Written(self.written()).viewed(shape)

    def transposed(self) -> Part:
        return Written(self.written()).transposed()

    def nbytes(self) -> int:
        return self.x.nbytes + self.back.nbytes

    def _walks_as(self, other: Convolution) -> bool:
        sizes = [(part.x.shape[3:], part.back.shape[3:], part.geometry) for part in (self, other)]
        return sizes[0] == sizes[1]

    def _float32_pays(self) -> bool:
        """Whether there are many more terms to add than the check of their sum adds."""
        many = self.shape[1] >= 4 * PROBES and self.count * self._places >= 32 * PROBES
        return self.x.dtype == torch.float32 and self._usual and many

    def _pieces(self, wide: int) -> Iterator[slice]:
        """Rows few enough that their patches and gradients of so many bytes a value may stand."""
        values = max(self._places * self._depth * self._cut.groups, self.shape[0] * self._depth)
        step = max(1, AT_ONCE // (values * wide))
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def _columns(self, x: torch.Tensor) -> torch.Tensor:
        """(n, groups, depth, T × places), copied unless a patch is a value."""
        depth = x.shape[2] // self._cut.groups * self._cut.taps
        views = self._cut.patches(x, self.back.shape[3:])
        views = views.unflatten(2, (self._cut.groups, -1)).movedim(1, x.dim())
        return views.reshape(len(x), self._cut.groups, depth, -1)

    def _outputs(self, back: torch.Tensor) -> torch.Tensor:
        """(n, outputs, T × places)."""
        return back.transpose(1, 2).flatten(2)

    def _scaled(self, factors: torch.Tensor) -> torch.Tensor:
        return self.back * factors.view(-1, *(1,) * (self.back.dim() - 1))

    def _written(self, rows: slice) -> torch.Tensor:
        """(n, outputs, inputs, *kernel that sees input)."""
        x, back = self.x[rows], self.back[rows]
        n, groups = len(x), self._cut.groups
        shape = (*self.shape[:2], *self._cut.kernel)
        if (
            self._usual
            and self._cut.taps > 1
            and self._places > FEW_PLACES
            and (x.dtype, x.device.type) == (torch.float32, "cpu")
        ):  # the rows as groups of one convolution: patches are never copied
            x, back = (v.transpose(0, 1).flatten(1, 2)[None] for v in (x, back))
            return self._product(x, back, n).view(n, *shape)
        a = self._outputs(back).unflatten(1, (groups, -1)).flatten(0, 1)
        return torch.bmm(a, self._columns(x).flatten(0, 1).mT).view(n, *shape)

    def _product(self, x: torch.Tensor, back: torch.Tensor, rows: int = 1) -> torch.Tensor:
        """The library's weight gradient, summed over the rows."""
        cut = self._cut
        shape = (rows * self.shape[0], self.shape[1], *cut.kernel)
        weight = x.new_empty(1).expand(shape)  # only its shape is read
        walk = (cut.stride, cut.padding, cut.dilation, False, (0,) * len(cut.kernel))
        found: torch.Tensor = torch.ops.aten.convolution_backward(
            *(back.flatten(0, 1), x.flatten(0, 1), weight, None),
            *(*walk, rows * cut.groups, (False, True, False)),
        )[1]
        return found

    def _sum(self, x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Σ factor × row in float64, (outputs, channels ÷ groups of ``x``, *cut kernel)."""
        groups = self._cut.groups
        depth = x.shape[2] // groups * self._cut.taps
        shape = (groups, self.shape[0] // groups, depth)
        found = torch.zeros(shape, dtype=torch.float64, device=x.device)
        for rows in self._pieces(8):
            scaled = self.back[rows] * factors[rows].view(-1, *(1,) * (self.back.dim() - 1))
            a = self._outputs(scaled.flatten(0, 1)[None])[0].unflatten(0, (groups, -1))
            b = self._columns(x[rows].double().flatten(0, 1)[None])[0]
            found += a @ b.mT
        return found.view(self.shape[0], -1, *self._cut.kernel)

    def _measured(self, found: torch.Tensor, factors: torch.Tensor) -> float:
        """The square of the error E of a weighted sum, from that of a few sums over channels.

        The mean square of E·u over random signs u is ‖E‖², and inputs that are mixed by signs
        have a float64 sum that is cheap.
        """
        groups = self._cut.groups
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (groups, PROBES, self.shape[1]), generator=generator)
        signs = (2 * signs - 1).to(self.x.device, torch.float64)
        x = self.x.double().flatten(3).unflatten(2, (groups, -1))
        mixed = (signs @ x).view(*self.x.shape[:2], groups * PROBES, *self.x.shape[3:])
        truth = self._sum(mixed, factors).view(groups, -1, PROBES, self._cut.taps)
        values = found.double().view(groups, -1, self.shape[1], self._cut.taps)
        off = signs[:, None] @ values - truth
        return 4 * float(off.square().sum()) / PROBES
