"""Examples made up within the ranges of the real ones, and the rows that hold the extremes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Tree, first, leaves, length, mapped

_COLUMNS = 128  # beyond so many values an example, extremes are those of the whole tensor


@dataclass(frozen=True)
class Ranges:
    """What each value of an example lies between; private, so it stays within the rehearsal.

    ``whole`` are the data where they are whole numbers: between two of them there may be one that
    means nothing (between a class and the −100 of ``ignore_index``).
    """

    low: torch.Tensor
    high: torch.Tensor
    whole: torch.Tensor | None = None

    @classmethod
    def of(cls, data: torch.Tensor) -> Ranges:
        """Column by column, over what is finite; a range of floats is never a point."""
        if data.is_complex():
            return cls(torch.zeros_like(data[0]), torch.ones_like(data[0]))
        if not data.is_floating_point():
            return cls(data[0], data[0], data)
        low, high = data.amin(0), data.amax(0)
        finite = torch.isfinite(low) & torch.isfinite(high)
        low, high = low.where(finite, 0.0), high.where(finite, 1.0)
        return cls(low, torch.where(high > low, high, low + 1))

    def draw(
        self, count: int, dtype: torch.dtype, generator: torch.Generator, part: float
    ) -> torch.Tensor:
        """``count`` examples; ``part`` < 1 takes the lower part of each range, or the first rows.

        A whole number is one of its column's, each from a row of its own.
        """
        u = torch.rand((count, *self.low.shape), generator=generator, dtype=torch.float64) * part
        u = u.to(self.low.device)
        if self.whole is not None:
            return self.whole.gather(0, (u * len(self.whole)).long())
        if self.low.is_complex():
            return u.to(dtype)
        low, high = self.low.double(), self.high.double()
        return (low + u * (high - low)).to(dtype)


class MadeUp:
    """Draws examples of the shape and dtype of ``data``, from a generator of its own.

    * Single tensors as inputs and targets: each whole number is one of its column's.
    * Of several tensors, whole numbers and masks belong together (tokens, positions, and which of
      them count): all of an example's are those of one record, and no two examples share it where
      there are records enough. Other numbers are made up.
    """

    def __init__(self, data: Batch) -> None:
        self._data, self._together = data, not all(isinstance(p, torch.Tensor) for p in data)
        self._ranges = mapped(self._range, data)
        self._generator = torch.Generator().manual_seed(0)

    def batch(self, count: int, part: float = 1.0) -> Batch:
        device = first(self._data).device
        rows = torch.zeros(0, dtype=torch.int64)
        if self._together:
            u = torch.rand(count, generator=self._generator, dtype=torch.float64)
            spread = (torch.arange(count) + u) / count * part
            rows = (spread * length(self._data)).long().to(device)

        def drawn(ranges: Ranges | None, tensor: torch.Tensor) -> torch.Tensor:
            if ranges is None:
                return tensor[rows]
            return ranges.draw(count, tensor.dtype, self._generator, part)

        inputs, targets = mapped(drawn, self._ranges, self._data)
        return inputs, targets

    def _range(self, tensor: torch.Tensor) -> Ranges | None:
        return None if self._together and _whole(tensor) else Ranges.of(tensor)


def _whole(data: torch.Tensor) -> bool:
    """Whether a tensor holds whole numbers, or is a mask of zeros and ones."""
    if data.is_floating_point():
        return bool(((data == 0) | (data == 1)).all())
    return not data.is_complex()


def extreme_rows(data: Tree) -> torch.Tensor:
    """The rows that hold the largest and the smallest value, of each column where they are few."""
    return torch.cat([_extremes(tensor) for tensor in leaves(data)]).unique()


def _extremes(data: torch.Tensor) -> torch.Tensor:
    if data.is_complex() or data[0].numel() == 0:
        return torch.zeros(1, dtype=torch.int64, device=data.device)
    flat = data.reshape(len(data), -1)
    flat = flat.to(torch.uint8) if flat.dtype is torch.bool else flat
    found = _least_and_largest(flat, flat)
    if flat.is_floating_point() and torch.isnan(flat[found]).any():
        # what is not a number is both least and largest: the numbers' own stand beside it
        odd = torch.isnan(flat)
        own = _least_and_largest(flat.where(~odd, math.inf), flat.where(~odd, -math.inf))
        found = torch.cat([found, own])
    return found.unique()


def _least_and_largest(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The rows of each column's least and largest, of all columns' where they are many."""
    if low.shape[1] > _COLUMNS:
        return torch.stack([low.amin(1).argmin(), high.amax(1).argmax()])
    return torch.cat([low.argmin(0), high.argmax(0)])
