"""Sources of rows: tables whose columns are read together, some rows at a time."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from dpsgd_torch.data.base import Piece, Tensor
from dpsgd_torch.data.columns import WHOLE, Column, pieces_of, rows_of, told_whole
from dpsgd_torch.data.padded import Padded, Sequences
from dpsgd_torch.data.pandas_tables import side_by_side
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError

FIRST = np.zeros(1, np.int64)
IGNORED = -100  # what losses leave out, as dpsgd_torch.losses and torch's ignore_index do


@dataclass(frozen=True)
class Padding:
    """How sequences are padded: ``Padded``'s arguments, and by column what padding holds."""

    values: Mapping[str, float] = field(default_factory=dict)
    multiple_of: int = 8
    length: int | None = None

    def of(self, rows: Sequences, name: str, *, target: bool) -> Padded:
        """0 by default; −100 for targets that are whole numbers."""
        ignored = target and not rows.spec.dtype.is_floating_point
        ignored = ignored and rows.spec.dtype is not torch.bool
        value = self.values.get(name, IGNORED if ignored else 0)
        return Padded(rows, value, multiple_of=self.multiple_of, length=self.length)


class Source(abc.ABC):
    """A table: names, a length, and random access to rows.

    ``by_name``: a model is called with its columns by their names, unless it is asked otherwise.
    """

    names: list[str]
    by_name: bool

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abc.abstractmethod
    def unequal(self, name: str) -> bool:
        """Whether its values are sequences of unequal length."""

    @abc.abstractmethod
    def read(self, name: str, indices: Indices) -> torch.Tensor | list[torch.Tensor]:
        """Values of one column in these rows: a tensor; of unequal length, a list of them."""

    def own_fingerprint(self) -> str:
        """What the table says of its content, where it is too large to pass over; else ""."""
        return ""

    def column(
        self, name: str, where: str, padding: Padding, *, target: bool
    ) -> Column | torch.Tensor:
        """A column of these rows, padded where they are of unequal length.

        Raises:
            DataError: it is not there, or holds no numbers.
        """
        if name not in self.names:
            known = ", ".join(map(str, self.names))
            raise DataError(f"{where} = {name!r}: no such column; choose among {known}")
        if self.unequal(name):
            return padding.of(_RowsOf(self, name), name, target=target)
        return _ColumnOf(self, name)


class _ColumnOf(Column):
    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name = source, name
        self._spec = Tensor.of(self.take(FIRST))

    def __len__(self) -> int:
        return len(self._source)

    @property
    def spec(self) -> Tensor:
        return self._spec

    def take(self, indices: Indices) -> torch.Tensor:
        read = self._source.read(self._name, indices)
        assert isinstance(read, torch.Tensor)
        return read

    def fingerprint(self) -> Iterator[Piece]:
        own = self._source.own_fingerprint()
        if own:
            yield f"{self._name} {own} ".encode()
        else:
            yield from super().fingerprint()

    @property
    def told_whole(self) -> bool:
        small = len(self) * self.row_bytes() <= WHOLE
        return small and not self._source.own_fingerprint()


class _RowsOf(Sequences):
    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name = source, name
        some = source.read(name, np.arange(min(len(source), 100)))
        self._spec = Tensor.of(next((row for row in some if len(row)), some[0]))

    def __len__(self) -> int:
        return len(self._source)

    @property
    def spec(self) -> Tensor:
        return self._spec

    def get(self, indices: Indices) -> list[torch.Tensor]:
        found = []
        for index, row in zip(indices, self._source.read(self._name, indices), strict=True):
            if len(row) == 0:  # which says nothing of its elements
                row = torch.zeros(0, *(size or 0 for size in self._spec.shape))
                row = row.to(self._spec.dtype)
            if Tensor.of(row) != self._spec:
                raise DataError(
                    f"column {self._name!r}: row {index} has elements of {row.dtype} of shape "
                    f"{tuple(row.shape[1:])} where others have {self._spec.dtype} of shape "
                    f"{self._spec.shape}: must differ in length alone; make them alike"
                )
            found.append(row)
        return found

    def own_fingerprint(self) -> str:
        return self._source.own_fingerprint()


class SideBySide(Column):
    """Columns (n,) as one of shape (n, columns), of a dtype that holds them all."""

    def __init__(self, columns: list[Column | torch.Tensor]) -> None:
        self._columns = columns
        self._spec = Tensor.of(self.take(FIRST))

    def __len__(self) -> int:
        return len(self._columns[0])

    @property
    def spec(self) -> Tensor:
        return self._spec

    def take(self, indices: Indices) -> torch.Tensor:
        return side_by_side([rows_of(column, indices) for column in self._columns])

    def fingerprint(self) -> Iterator[Piece]:
        for column in self._columns:
            yield from pieces_of(column)

    @property
    def told_whole(self) -> bool:
        return all(map(told_whole, self._columns))
