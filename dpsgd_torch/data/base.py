"""Data interface: a length, random access to rows, and what one row looks like."""

from __future__ import annotations

import abc
import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from dpsgd_torch.data.tensors import raw_pieces
from dpsgd_torch.data.trees import Tree, leaves, mapped, named
from dpsgd_torch.data.units import Flags, Indices

Batch = tuple[Tree, Tree]
Piece = bytes | bytearray | memoryview

ROWS = 1000  # in memory at once where all are passed over
_BYTES = 1 << 24  # and no more than one row and so many bytes, where they are loaded


@dataclass(frozen=True)
class Tensor:
    """Shape and dtype of one example's part, the batch dimension left out.

    None in ``shape`` is a dimension that differs from batch to batch: sequences that are padded to
    the longest of theirs.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, rows: torch.Tensor) -> Tensor:
        return cls(tuple(rows.shape[1:]), rows.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of it, one element long where its length differs."""
        return math.prod(size or 1 for size in self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Schema:
    """What one example is made of: a ``Tensor``, or a tuple, list or dict of them, for each part.

    >>> batch = {"ids": torch.zeros(2, 5)}, torch.zeros(2)
    >>> Schema.of(batch).inputs
    {'ids': Tensor(shape=(5,), dtype=torch.float32)}
    """

    inputs: Any
    targets: Any

    @classmethod
    def of(cls, batch: Batch) -> Schema:
        """What a batch's rows are."""
        return cls(*(mapped(Tensor.of, part) for part in batch))

    @property
    def varies(self) -> bool:
        """Whether a dimension differs from batch to batch."""
        parts = [*leaves(self.inputs), *leaves(self.targets)]
        return any(None in part.shape for part in parts)

    def row_bytes(self) -> int:
        """Bytes of one example, but for what differs from batch to batch."""
        parts = [*leaves(self.inputs), *leaves(self.targets)]
        return max(1, sum(part.nbytes for part in parts))


def rows_at_once(schema: Schema) -> int:
    """How many rows are loaded together where all are passed over.

    >>> rows_at_once(Schema(Tensor((3, 224, 224), torch.float32), Tensor((), torch.int64)))
    27
    """
    return max(1, min(ROWS, _BYTES // schema.row_bytes()))


@dataclass(frozen=True)
class Wanted:
    """Rows that are taken together, and the key of what is drawn for each (its augmentation)."""

    rows: Indices
    key: bytes = b""


class Takes(Protocol):
    """Whatever gives rows by their numbers."""

    def take(self, indices: Indices) -> Batch: ...


class Data(abc.ABC):
    """The examples that a run trains on, is tested on or is validated on.

    * ``take`` gives the rows that are asked for, one for each index, in their order: who is in a
      batch is drawn and charged before, and is not the data's to change.
    * A row is the same each time it is taken, in this run and in one that resumes it. What is
      drawn for it (augmentation) depends on its number and a key alone; ``take`` has an empty one.
    * Inputs and targets are tensors, or tuples, lists or dicts of them: a model is called with
      what there is, ``model(x)``, ``model(*x)`` or ``model(**x)``.

    A kind overrides ``__len__``, ``take`` and ``schema``; ``fingerprint`` where it knows a way
    that need not pass over all rows; ``ahead`` where it loads in the background, or augments.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abc.abstractmethod
    def take(self, indices: Indices) -> Batch:
        """(inputs, targets) of these rows, stacked along a first dimension; on any device."""

    @property
    @abc.abstractmethod
    def schema(self) -> Schema:
        """Shapes and dtypes of one example, which every row has."""

    def fingerprint(self) -> Iterator[Piece]:
        """Bytes that a resumed run must share; by default all inputs, then all targets.

        What it leaves out, a resumed run does not notice.
        """
        for part in range(2):
            for batch in self.batches():
                yield from tree_bytes(batch[part])

    @property
    def told_whole(self) -> bool:
        """Whether ``fingerprint`` changes with every value of every row.

        Where it does not, one seed could give two data sets the same noise: noise then hangs on
        the sums too. A kind with a fingerprint of its own says so itself; else it does not.
        """
        return type(self).fingerprint is Data.fingerprint

    def ahead(self, wanted: Iterable[Wanted]) -> Generator[Batch]:
        """The rows of each in turn, of which several may be asked for before they are needed.

        Closed early, it lets go of what it loaded and of whoever was loading.
        """
        for each in wanted:
            yield self.take(each.rows)

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """All rows in order, ``size`` at a time; by default 1000, or fewer where they are large."""
        size = size or rows_at_once(self.schema)
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    def rows(self, where: Indices | Flags) -> Data:
        """The rows of these numbers, or where it is true, numbered anew."""
        return Rows(self, where)

    def in_memory(self) -> Batch | None:
        """All rows at once where memory holds them anyway, else None."""
        return None


def tree_bytes(tree: Tree) -> Iterator[Piece]:
    """A tensor's values; of several, also what and where each is."""
    for name, tensor in sorted(named(tree, ""), key=lambda found: found[0]):
        if name:
            yield f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode()
        yield from raw_pieces(tensor)


class Rows(Data):
    """Some of another's rows, as for a fold."""

    def __init__(self, whole: Data, where: Indices | Flags) -> None:
        self._whole, self._where = whole, np.arange(len(whole))[where]

    def __len__(self) -> int:
        return len(self._where)

    def take(self, indices: Indices) -> Batch:
        return self._whole.take(self._where[indices])

    def ahead(self, wanted: Iterable[Wanted]) -> Generator[Batch]:
        return self._whole.ahead(Wanted(self._where[each.rows], each.key) for each in wanted)

    @property
    def schema(self) -> Schema:
        return self._whole.schema
