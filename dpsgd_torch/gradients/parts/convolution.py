"""Sums of products of patches and output gradients: convolutions.

Held are what came in and what comes back; patches are copied for a few rows at a time. The norm is
that of the Gram matrices over places where those are few [Li et al. 2022, "ghost clipping"], else
of gradients written out; a weighted sum over examples is one weight gradient of rescaled output
gradients [Bu et al. 2023, "book-keeping"].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.nn.functional import pad

from dpsgd_torch.gradients.parts.base import Part
from dpsgd_torch.gradients.parts.grouping import together
from dpsgd_torch.gradients.parts.patches import Geometry
from dpsgd_torch.gradients.parts.pieces import pieces, real
from dpsgd_torch.gradients.parts.tracing import step_of
from dpsgd_torch.gradients.parts.written import Written

AT_ONCE = 1 << 20  # bytes of patches or gradients that are written at a time: a cache's
FEW_PLACES = 20  # below, a product of patches is faster than the library's weight gradient
STEPS = 768  # places that one float32 product adds up
LONG = 4096  # places whose float32 sums, where all terms round one way, are off by 2e-4 of a norm
PROBES = 4


class Convolution(Part):
    """Row i is Σ_t Σ_place back[i, t, :, place] ⊗ patch of x[i, t] at that place, in groups.

    ``x`` (rows, T, channels, *size) and ``back`` (rows, T, outputs, *places); of shape
    (outputs, channels ÷ groups, *kernel).
    """

    def __init__(self, x: torch.Tensor, back: torch.Tensor, geometry: Geometry) -> None:
        x, back = real(x), real(back)  # neither norm nor sum in half
        self.x, self.back, self.geometry = x, back, geometry
        inputs = x.shape[2] // geometry.groups
        self.shape = torch.Size((back.shape[2], inputs, *geometry.kernel))
        cut, seen = geometry.seeing(x.shape[3:], back.shape[3:])
        self._cut, self._seen = cut, (slice(None), slice(None), *seen)
        self._places = back.shape[1] * math.prod(back.shape[3:])
        self._depth = inputs * cut.taps  # values of a patch that an output sees
        self._own: Written | None = None
        self._usual = cut.is_usual(x.shape[3:], back.shape[3:])

    @property
    def count(self) -> int:
        return len(self.x)

    def few(self) -> bool:
        """Whether gradients that are written out are about as few as what they are made of."""
        return self._few(self.shape.numel())

    def _few(self, values: int) -> bool:
        return values <= 2 * (self.x[:1].numel() + self.back[:1].numel())

    def written(self) -> torch.Tensor:
        if self._cut == self.geometry:
            found = self.x.new_empty(self.count, *self.shape)
        else:
            found = self.x.new_zeros(self.count, *self.shape)
        for rows, gradients in self._gradients():
            found[(rows, *self._seen)] = gradients
        return found

    def _written_where_seen(self) -> Written | None:
        """The gradients of the part of the kernel that sees input, where they are few."""
        cut = self._cut != self.geometry
        if self._own is None and cut and self._few(self.shape[0] * self._depth):
            own = self.x.new_empty(self.count, *self.shape[:2], *self._cut.kernel)
            for rows, gradients in self._gradients():
                own[rows] = gradients
            self._own = Written(own)
        return self._own

    def squared_norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        own = self._written_where_seen()
        if own is not None:
            return own.squared_norms()
        outputs, groups = self.shape[0] // self._cut.groups, self._cut.groups
        if 3 * self._places * (outputs + self._depth) < outputs * self._depth:
            found = self.x.new_empty(self.count, dtype=torch.float64)
            for rows in self._pieces(8 * self._places * (self._depth * groups + self.shape[0])):
                a = self._outputs(self.back[rows]).double()
                b = self._patches(self.x[rows]).double()
                found[rows] = (a.mT @ a).mul_(b @ b.mT).sum((1, 2, 3))
            squared = found.clamp(min=0).to(self.x.dtype)
            return squared, torch.zeros_like(squared)
        if self.x.dtype == torch.float32 and self._places > LONG:  # a unit of many rows
            wide = [self.widened(rows).squared_norms() for rows in self._all_rows()]
            return torch.cat([squared for squared, _ in wide]), torch.cat(
                [lost for _, lost in wide]
            )
        squared, dims = self.x.new_empty(self.count), tuple(range(1, len(self.shape) + 1))
        for rows, gradients in self._gradients():
            squared[rows] = torch.linalg.vector_norm(gradients, dim=dims).square()
        # Of K terms in any order each rounds: √K of them in the mean [Higham and Mary 2019].
        each = 4 * math.sqrt(self._places) * torch.finfo(squared.dtype).eps
        sizes = [v.flatten(1).square().sum(1) for v in (self.x, self.back)]
        off = each * (sizes[0] * sizes[1] * self._cut.taps).sqrt()
        lost = self.shape.numel() * torch.finfo(squared.dtype).tiny
        return squared, off * (2 * squared.sqrt() + off) + lost

    def add_to(self, total: torch.Tensor, factors: torch.Tensor, within: float) -> float:
        own, seen = self._written_where_seen(), total[self._seen]
        if own is not None:
            found = torch.zeros_like(seen, memory_format=torch.contiguous_format)
            error = own.add_to(found, factors, within)
            seen += found
            return error
        if within > 0 and self._float32_pays():
            found = self._single(factors)
            error = float(self._measured(found, factors))
            if error <= within**2:
                for at in _blocks(found):
                    seen[at] += found[at]
                return error
        seen += self._sum(factors)
        return 0.0

    def measured(self, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self._cut != self.geometry or not self._float32_pays():
            return None
        found = self._single(factors)
        return found, self._measured(found, factors)

    def grouped(self, slots: torch.Tensor, weights: torch.Tensor | None, count: int) -> Part:
        back = self.back if weights is None else self.back * _like(weights, self.back)
        x = together(self.x, slots, count)
        return Convolution(x, together(back, slots, count), self.geometry)

    def silenced(self, rows: torch.Tensor) -> Part:
        mask = _like(rows, self.x)
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

    def _pieces(self, size: int, at_once: int = AT_ONCE) -> Iterator[slice]:
        """Rows so few that so many bytes for each may stand."""
        step = step_of(self.count, max(1, at_once // max(1, size)))
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def _all_rows(self) -> Iterator[torch.Tensor]:
        for rows in self._pieces(8 * (self.x[:1].numel() + self.back[:1].numel())):
            yield torch.arange(rows.start, rows.stop, device=self.x.device)

    def _patches(self, x: torch.Tensor) -> torch.Tensor:
        """(n, groups, T × places, depth), copied unless a patch is a value."""
        channels = x.shape[2] // self._cut.groups
        views = self._cut.patches(x, self.back.shape[3:])
        views = views.view(*views.shape[:2], self._cut.groups, channels, *views.shape[3:])
        middle, end = 4 + len(self._cut.kernel), views.dim()
        taps, places = range(4, middle), range(middle, end)
        steps = x.shape[1] * math.prod(self.back.shape[3:])
        sizes = (len(x), self._cut.groups, steps, channels * self._cut.taps)
        if self._channels_last(channels):
            return views.permute(0, 2, 1, *places, *taps, 3).reshape(sizes)
        return views.permute(0, 2, 3, *taps, 1, *places).reshape(*sizes[:2], *sizes[:1:-1]).mT

    def _channels_last(self, channels: int) -> bool:
        """Whether they are the fastest in a copied patch: its longest runs are copied at once."""
        return channels >= self.back.shape[-1]

    def _shaped(self, values: torch.Tensor) -> torch.Tensor:
        """(n, groups, outputs of one, depth of ``_patches``) → (n, outputs, inputs, *kernel)."""
        n, cut = len(values), self._cut
        inputs = values.shape[-1] // cut.taps
        if self._channels_last(inputs):
            return values.view(n, self.shape[0], *cut.kernel, inputs).movedim(-1, 2)
        return values.view(n, self.shape[0], inputs, *cut.kernel)

    def _outputs(self, back: torch.Tensor) -> torch.Tensor:
        """(n, groups, outputs of one, T × places)."""
        groups, outputs = self._cut.groups, self.shape[0] // self._cut.groups
        steps = back.shape[1] * math.prod(back.shape[3:])
        return back.transpose(1, 2).reshape(len(back), groups, outputs, steps)

    def _gradients(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Rows and their (n, outputs, inputs, *kernel that sees input), some at a time."""
        wide, groups = self.x.element_size(), self._cut.groups
        size = wide * self.shape[0] * self._depth
        if self._library_writes():
            for rows in self._pieces(max(size, self.x[:1].nbytes + self.back[:1].nbytes)):
                n = len(range(*rows.indices(self.count)))
                x, back = (v[rows].transpose(0, 1).flatten(1, 2)[None] for v in (self.x, self.back))
                found = self._product(x, back, n)
                yield rows, found.view(n, *self.shape[:2], *self._cut.kernel)
            return
        for rows in self._pieces(max(size, wide * self._places * self._depth * groups)):
            yield rows, self._shaped(self._outputs(self.back[rows]) @ self._patches(self.x[rows]))

    def _library_writes(self) -> bool:
        """Whether its weight gradient, with the rows as groups, is faster than copied patches."""
        kind = (self.x.dtype, self.x.device.type) == (torch.float32, "cpu")
        if not (kind and self._usual and self._cut.taps > 1):
            return False
        if self._cut.groups > 1:
            return True
        return self._channels_last(self.shape[1]) and self._places > FEW_PLACES

    def _product(self, x: torch.Tensor, back: torch.Tensor, rows: int = 1) -> torch.Tensor:
        """The library's weight gradient, summed over the rows."""
        cut = self._cut
        shape = (rows * self.shape[0], self.shape[1], *cut.kernel)
        weight = x.new_empty(1).expand(shape)  # only its shape is read
        padding, none = cut.padding, (0,) * len(cut.kernel)
        wide = any(taps > size for taps, size in zip(cut.kernel, x.shape[3:], strict=True))
        if wide and rows * cut.groups > 1:
            x, padding = pad(x, [side for side in padding[::-1] for _ in "ab"]), none  # 5 × faster
        walk = (cut.stride, padding, cut.dilation, False, none)
        found: torch.Tensor = torch.ops.aten.convolution_backward(
            *(back.flatten(0, 1), x.flatten(0, 1), weight, None),
            *(*walk, rows * cut.groups, (False, True, False)),
        )[1]
        return found

    def _single(self, factors: torch.Tensor) -> torch.Tensor:
        """The library's weighted sum, in float32 over so few places that it rounds little."""
        found: torch.Tensor | None = None
        for rows in self._pieces(self._places, STEPS):
            back = (self.back[rows] * _like(factors[rows], self.back)).float()
            product = self._product(self.x[rows], back)
            found = product if found is None else found.double().add_(product)
        assert found is not None
        return found

    def _sum(self, factors: torch.Tensor, mix: torch.Tensor | None = None) -> torch.Tensor:
        """Σ factor × row in float64, (outputs, channels ÷ groups, *cut kernel).

        ``mix`` (groups, fewer, channels ÷ groups) puts fewer channels in place of the input's.
        """
        groups = self._cut.groups
        channels = self.shape[1] if mix is None else mix.shape[1]
        depth = channels * self._cut.taps
        shape = (groups, self.shape[0] // groups, depth)
        found = torch.zeros(shape, dtype=torch.float64, device=self.x.device)
        size = 8 * max(self.x[:1].numel(), self._places * (depth * groups + self.shape[0]))
        least = 16 * self.shape[0] * depth  # so that what is summed is not what is read most
        for rows in self._pieces(size, max(AT_ONCE, least)):
            scaled = self.back[rows] * _like(factors[rows], self.back)
            x = self.x[rows].double().flatten(0, 1)
            if mix is not None:
                x = (mix @ x.flatten(2).unflatten(1, (groups, -1))).view(len(x), -1, *x.shape[2:])
            a, b = scaled.flatten(0, 1)[None], x[None]  # as one row's
            found.baddbmm_(self._outputs(a)[0], self._patches(b)[0])
        return self._shaped(found[None])[0]

    def _measured(self, found: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """The square of the error E of a weighted sum, from that of a few sums over channels.

        The mean square of E·u over normal u is ‖E‖², and inputs that are mixed by them have a
        float64 sum that is cheap. 100 × it is taken: see ``add_outer``, where a channel is a value.
        """
        groups = self._cut.groups
        normal = _normal((groups, PROBES, self.shape[1]), str(self.x.device))
        truth = self._sum(factors, normal).view(groups, -1, PROBES, self._cut.taps)
        values = found.view(groups, -1, self.shape[1], self._cut.taps)
        off = factors.new_zeros(())
        for group in range(groups):
            for at in _blocks(values[group]):
                block = normal[group] @ values[group, at].double() - truth[group, at]
                off = off + block.square().sum()
        return 100 * off / PROBES


@lru_cache(maxsize=64)
def _normal(shape: tuple[int, ...], device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device)


def _like(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A value a row, beside what the rows hold."""
    return rows.view(-1, *(1,) * (values.dim() - 1))


def _blocks(values: torch.Tensor) -> Iterator[slice]:
    """Of the first dimension, so few that they stay in a cache once they are widened."""
    return pieces(len(values), values[:1].numel(), values.device)
