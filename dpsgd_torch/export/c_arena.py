"""Where intermediate tensors lie in the C target's one scratch arena.

A tensor lives from the step that makes it to the last that reads it. Where a kernel has read what
it is about to overwrite, its output may begin a few bytes before its input and grow over it.
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
    OperationKind,
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
    tensors: Sequence[Tensor],
    operations: Sequence[Operation],
    scratch: Sequence[int],
    sources: Sequence[tuple[int, ...]] | None = None,
) -> Arena:
    """Plan the arena greedily: each tensor where the arena grows least.

    ``scratch``: bytes each operation needs beside its tensors. ``sources``: which tensors each
    reads; None: a chain. The first and the last tensor are the caller's.
    """
    sources = sources or [(index,) for index in range(len(operations))]
    last_read = {source: step for step, reads in enumerate(sources) for source in reads}
    offsets: list[int | None] = [None]
    scratch_offsets: list[int] = []
    extent = _Extent()
    live: dict[int, tuple[int, int]] = {}
    for index, operation in enumerate(operations):
        after = index + 1
        if after < len(operations):
            size = _aligned(tensors[after].size)
            start = _start(index, operation, tensors, sources[index], live, last_read, size, extent)
            extent = extent.with_(start, size)
            live[after] = (start, start + size)
            offsets.append(start)
        else:
            offsets.append(None)
        at = _free(list(live.values()), _aligned(scratch[index]), extent)
        extent = extent.with_(at, _aligned(scratch[index]))
        scratch_offsets.append(at)
        live = {t: where for t, where in live.items() if last_read.get(t, -1) > index}
    return Arena(
        tuple(None if offset is None else offset - extent.low for offset in offsets),
        tuple(offset - extent.low for offset in scratch_offsets),
        extent.size,
    )


def _start(
    index: int,
    operation: Operation,
    tensors: Sequence[Tensor],
    reads: tuple[int, ...],
    live: dict[int, tuple[int, int]],
    last_read: dict[int, int],
    size: int,
    extent: _Extent,
) -> int:
    """Where the output begins: beside what lives, or over an input that dies with this step."""
    starts: list[int] = []
    for which, source in enumerate(reads):
        if source not in live or last_read[source] > index or reads.count(source) > 1:
            continue
        ahead = _lead(operation, which, [tensors[each] for each in reads], tensors[index + 1])
        if ahead is not None:
            start = live[source][0] - ahead
            others = [where for tensor, where in live.items() if tensor != source]
            if _fits(start, size, others):
                starts.append(start)
    for low, high in live.values():
        starts += [start for start in (high, low - size) if _fits(start, size, list(live.values()))]
    return min(starts or [0], key=lambda start: extent.with_(start, size).size)


def _lead(
    operation: Operation, which: int, sources: Sequence[Tensor], target: Tensor
) -> int | None:
    if isinstance(operation, OperationKind):
        return operation.lead(which, sources, target)
    return lead(operation, sources[0], target)


def _fits(start: int, size: int, busy: list[tuple[int, int]]) -> bool:
    return all(start >= end or start + size <= begin for begin, end in busy)


def _free(busy: list[tuple[int, int]], size: int, extent: _Extent) -> int:
    """A start for so many bytes beside the busy ones, where the arena grows least."""
    starts = [extent.low, *(end for _, end in busy), *(start - size for start, _ in busy)]
    free = [start for start in starts if _fits(start, size, busy)]
    return min(free, key=lambda start: extent.with_(start, size).size)


def _first_reads(window: Window, source: Tensor, target: Tensor) -> np.ndarray:
    """For each output position in order, the first cell of the input that it reads."""
    rows = np.arange(target.shape[0]) * window.stride[0] - window.padding[0][0]
    columns = np.arange(target.shape[1]) * window.stride[1] - window.padding[1][0]
    cells = np.maximum(rows, 0)[:, None] * source.shape[1] + np.maximum(columns, 0)[None, :]
    return cells.reshape(-1)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
