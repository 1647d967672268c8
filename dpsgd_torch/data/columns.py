"""Columns: parts of examples that are read as they are drawn; memory holds batches, not the data.

Each kind is a file: arrays on disk, sequences to be padded, sparse rows, columns of a table.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import Batch, Data, Piece, Schema, Tensor
from dpsgd_torch.data.tensors import raw_bytes, raw_pieces
from dpsgd_torch.data.trees import Tree, leaves, mapped, named
from dpsgd_torch.data.units import Indices

AT_ONCE = 1 << 24  # bytes that are hashed, or of a part that is passed over, at once
WHOLE = 1 << 32  # bytes up to which a digest is of every row
_SAMPLES = 256  # blocks that stand for a larger part


class Column(abc.ABC):
    """One part of every example, such as the images or the labels, read row by row."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @property
    @abc.abstractmethod
    def spec(self) -> Tensor:
        """Shape and dtype of one row; None for a dimension that differs from batch to batch."""

    @abc.abstractmethod
    def take(self, indices: Indices) -> torch.Tensor:
        """The rows of these numbers, in their order."""

    def fingerprint(self) -> Iterator[Piece]:
        """The values of all rows, in pieces; beyond 4 GiB of some that are evenly spread."""
        for rows in blocks(len(self), self.row_bytes()):
            yield raw_bytes(self.take(rows))

    @property
    def told_whole(self) -> bool:
        """Whether ``fingerprint`` changes with every value of every row, as ``Data`` has it."""
        own = type(self).fingerprint is not Column.fingerprint
        return not own and len(self) * self.row_bytes() <= WHOLE

    def row_bytes(self) -> int:
        """Bytes of a row; as long as the first, where they differ."""
        first = self.take(np.zeros(1, np.int64))
        return max(1, first.numel() * first.element_size())


def blocks(rows: int, row_bytes: int) -> Iterator[Indices]:
    """Row numbers block by block: all, or those of evenly spread blocks where rows are too many.

    >>> [block.tolist() for block in blocks(3, AT_ONCE // 2)]
    [[0, 1], [2]]
    >>> sum(map(len, blocks(1 << 20, 1 << 20)))  # of a TiB, 4 GiB
    4096
    """
    size = max(1, AT_ONCE // row_bytes)
    starts = range(0, rows, size)
    if rows * row_bytes > WHOLE:
        size = min(size, max(1, WHOLE // row_bytes // _SAMPLES))
        starts = np.linspace(0, max(0, rows - size), _SAMPLES).astype(np.int64).tolist()
    for start in starts:
        yield np.arange(start, min(start + size, rows))


class Parts(Data):
    """Inputs and targets as trees of columns and tensors.

    * ``fingerprint``: every value of every row, up to 4 GiB a part; of a larger one, rows evenly
      spread over it, so that it would not notice a change between them. A table on disk beyond
      that may have a fingerprint of its own, which is taken.
    """

    def __init__(self, inputs: Tree, targets: Tree) -> None:
        self._batch = inputs, targets

    def __len__(self) -> int:
        return len(leaves(self._batch)[0])

    def take(self, indices: Indices) -> Batch:
        inputs, targets = (
            mapped(lambda part: rows_of(part, indices), tree) for tree in self._batch
        )
        return inputs, targets

    @property
    def schema(self) -> Schema:
        return Schema(*(mapped(_spec, tree) for tree in self._batch))

    def fingerprint(self) -> Iterator[Piece]:
        for tree in self._batch:
            for name, part in sorted(named(tree, ""), key=lambda found: found[0]):
                if name:
                    spec = _spec(part)
                    shape = tuple(-1 if size is None else size for size in (len(part), *spec.shape))
                    yield f"{name} {shape} {spec.dtype} ".encode()
                yield from pieces_of(part)

    @property
    def told_whole(self) -> bool:
        return all(told_whole(part) for part in leaves(self._batch))


def told_whole(part: torch.Tensor | Column) -> bool:
    """Whether ``pieces_of`` are of every value."""
    return not isinstance(part, Column) or part.told_whole


def rows_of(part: torch.Tensor | Column, indices: Indices) -> torch.Tensor:
    """The rows of these numbers."""
    if isinstance(part, Column):
        return part.take(indices)
    return part.index_select(0, torch.from_numpy(indices).to(part.device))


def pieces_of(part: torch.Tensor | Column) -> Iterator[Piece]:
    """What a digest takes of it."""
    yield from part.fingerprint() if isinstance(part, Column) else raw_pieces(part)


def _spec(part: torch.Tensor | Column) -> Tensor:
    return part.spec if isinstance(part, Column) else Tensor.of(part)


Leaf = Callable[[Any, str], Tree | None]  # (what was handed over, where it is) → what it is read by
