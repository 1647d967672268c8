"""How a convolution's kernel walks over its input: the patches, as a view."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Geometry:
    """A kernel's size and walk, a value a dimension; ``padding`` below 0 crops."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    def patches(self, x: torch.Tensor, places: torch.Size) -> torch.Tensor:
        """(rows, T, channels, *size) → a view (rows, T, channels, *kernel, *places)."""
        sides: list[int] = []
        for axis, (size, count) in enumerate(zip(x.shape[3:], places, strict=True)):
            before = self.padding[axis]
            reach = (count - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis]
            sides = [before, max(0, reach + 1 - before - size), *sides]
        if any(sides):
            x = pad(x, sides)
        at, dims = x.stride(), range(3, x.dim())
        taps = [at[d] * self.dilation[d - 3] for d in dims]
        steps = [at[d] * self.stride[d - 3] for d in dims]
        return x.as_strided((*x.shape[:3], *self.kernel, *places), (*at[:3], *taps, *steps))

    def is_usual(self, size: torch.Size, places: torch.Size) -> bool:
        """Whether a convolution of an input of this size has these places, neither more nor less.

        A transposed one with a large output_padding has fewer, one whose kernel was cut others.
        """
        return all(
            before >= 0 and (extent + 2 * before - (taps - 1) * apart - 1) // step + 1 == count
            for extent, count, taps, step, before, apart in zip(
                *(size, places, self.kernel, self.stride, self.padding, self.dilation),
                strict=True,
            )
        )

    def seeing(self, size: torch.Size, places: torch.Size) -> tuple[Geometry, tuple[slice, ...]]:
        """The part of the kernel that ever lies on input, and where in the kernel that is.

        A 3 × 3 kernel on one value with padding 1 is a 1 × 1 kernel; of 7 × 7, 1 in 49 is left.
        """
        seen = []
        for axis, (extent, count) in enumerate(zip(size, places, strict=True)):
            step, before, apart = self.stride[axis], self.padding[axis], self.dilation[axis]
            on = [
                tap
                for tap in range(self.kernel[axis])
                if any(0 <= place * step + tap * apart - before < extent for place in range(count))
            ]
            seen.append(slice(on[0], on[-1] + 1) if on else slice(0, 1))
        cut = replace(
            self,
            kernel=tuple(part.stop - part.start for part in seen),
            padding=tuple(
                before - part.start * apart
                for before, part, apart in zip(self.padding, seen, self.dilation, strict=True)
            ),
        )
        return cut, tuple(seen)
