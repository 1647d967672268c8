"""Where intermediate tensors lie in the C target's one scratch arena.

A chain has two live tensors at a time. Where a kernel has read what it is about to overwrite,
its output may begin a few bytes before its input and grow over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    MaxPool2D,
    Operation,
    Rescale,
    Softmax,
    Table,
    Tensor,
    Window,
)

ALIGNMENT = 4


@dataclass(frozen=True)
class Arena:
    """Offset of each tensor (None: a caller's buffer) and of each step's scratch, in bytes."""

    tensors: tuple[int | None, ...]
    scratch: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class _Extent:
    low: int = 0
    high: int = 0

    def with_(self, start: int, size: int) -> _Extent:
        return _Extent(min(self.low, start), max(self.high, start + size))

    @property
    def size(self) -> int:
        return self.high - self.low


def lead(operation: Operation, source: Tensor, target: Tensor) -> int | None:
    """How many bytes before its input an output may begin and overwrite it; None: nowhere.

    >>> pool = MaxPool2D(Window((2, 2)))
    >>> lead(pool, Tensor((14, 14, 16), 1.0, 0), Tensor((13, 13, 16), 1.0, 0))
    0
    """
    if isinstance(operation, Rescale | Table | Softmax):
        return 0
    if not isinstance(operation, Conv2D | MaxPool2D | AveragePool2D):
        return None
    channels, outputs = source.shape[2], target.shape[2]
    reads = _first_reads(operation.window, source, target) * channels
    written = np.arange(len(reads)) * outputs
    if isinstance(operation, Conv2D):
        written = written + outputs  # all channels of a position are read until it is done
    still_read = np.minimum.accumulate(reads[::-1])[::-1]
    return _aligned(max(0, int((written - still_read).max())))


def place(
    tensors: Sequence[Tensor], operations: Sequence[Operation], scratch: Sequence[int]
) -> Arena:
    """Plan the arena greedily: each tensor where the arena grows least.

    ``scratch``: bytes each operation needs beside its tensors. The first and the last tensor are
    the caller's.
    """
    offsets: list[int | None] = [None]
    scratch_offsets: list[int] = []
    extent = _Extent()
    for index, operation in enumerate(operations):
        source, target = tensors[index], tensors[index + 1]
        before = offsets[index]
        after: int | None = None
        if index + 1 < len(operations):
            size = _aligned(target.size)
            starts = [0]
            if before is not None:
                starts = [before + _aligned(source.size), before - size]
                ahead = lead(operation, source, target)
                if ahead is not None:
                    starts.insert(0, before - ahead)
            after = min(starts, key=lambda start: extent.with_(start, size).size)
            extent = extent.with_(after, size)
        offsets.append(after)
        busy = [
            (start, start + _aligned(tensor.size))
            for start, tensor in ((before, source), (after, target))
            if start is not None
        ]
        at = _free(busy, _aligned(scratch[index]), extent)
        extent = extent.with_(at, _aligned(scratch[index]))
        scratch_offsets.append(at)
    return Arena(
        tuple(None if offset is None else offset - extent.low for offset in offsets),
        tuple(offset - extent.low for offset in scratch_offsets),
        extent.size,
    )


def _free(busy: list[tuple[int, int]], size: int, extent: _Extent) -> int:
    """A start for so many bytes beside the busy ones, where the arena grows least."""
    starts = [extent.low, *(end for _, end in busy), *(start - size for start, _ in busy)]
    free = [
        start
        for start in starts
        if all(start >= end or start + size <= begin for begin, end in busy)
    ]
    return min(free, key=lambda start: extent.with_(start, size).size)


def _first_reads(window: Window, source: Tensor, target: Tensor) -> np.ndarray:
    """For each output position in order, the first cell of the input that it reads."""
    rows = np.arange(target.shape[0]) * window.stride[0] - window.padding[0][0]
    columns = np.arange(target.shape[1]) * window.stride[1] - window.padding[1][0]
    cells = np.maximum(rows, 0)[:, None] * source.shape[1] + np.maximum(columns, 0)[None, :]
    return cells.reshape(-1)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
