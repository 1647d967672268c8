"""Pyarrow tables and data sets on disk: columns of numbers and of lists of them, read as drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.arrays import numbers
from dpsgd_torch.data.pandas_tables import float_type
from dpsgd_torch.data.sources import Padding, Source
from dpsgd_torch.data.trees import Tree
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError

_MOVE = "leave it out, or number its values before (.dictionary_encode() for classes)"


def leaf(given: Any, name: str) -> Tree | None:
    """Columns by name of a table, one column of an array; None of anything else."""
    target = name.rsplit(": ", 1)[-1].startswith("targets")
    arrow = sys.modules.get("pyarrow")
    if arrow is None:
        return None
    if isinstance(given, arrow.Array | arrow.ChunkedArray):
        source: Source | None = ArrowTable(arrow.table({name: given}))
        assert source is not None
        return source.column(name, name, Padding(), target=target)
    source = opened(given)
    if source is None:
        return None
    return {
        column: source.column(column, name, Padding(), target=target) for column in source.names
    }


def opened(given: Any) -> Source | None:
    """A source of the rows of a table, or of a data set of files; None of anything else."""
    arrow, sets = sys.modules.get("pyarrow"), sys.modules.get("pyarrow.dataset")
    if arrow is not None and isinstance(given, arrow.Table):
        return ArrowTable(given)
    if arrow is not None and isinstance(given, arrow.RecordBatch):
        return ArrowTable(arrow.Table.from_batches([given]))
    if sets is not None and isinstance(given, sets.Dataset):
        return ArrowFiles(given)
    return None


class ArrowSource(Source):
    """Rows that are read as an arrow table."""

    def __init__(self, types: dict[str, Any], length: int, get: Callable[[Indices], Any]) -> None:
        self.names, self._types, self._length, self._get = list(types), types, length, get
        self.by_name = any(_depth(kind) for kind in types.values())
        self._last: tuple[bytes, Any] = b"", None

    def __len__(self) -> int:
        return self._length

    def unequal(self, name: str) -> bool:
        kind = self._types[name]
        if _shape(kind) is not None:
            return _shape(kind)[0] is None
        return _is_list(kind)

    def read(self, name: str, indices: Indices) -> torch.Tensor | list[torch.Tensor]:
        called = f"column {name!r}"
        refuse_no_numbers(self._types[name], called)
        if self._last[0] != indices.tobytes():
            self._last = indices.tobytes(), self._get(indices)
        column = _whole(self._last[1].column(name))
        if column.null_count:
            row = int(indices[int(np.flatnonzero(column.is_null().to_numpy(False))[0])])
            raise DataError(
                f"{called}: row {row} has no value: must have one in each; fill it, or leave the "
                "row out"
            )
        return rows_of(column, called) if self.unequal(name) else values(column, called)


class ArrowTable(ArrowSource):
    """A table in memory, or mapped from files."""

    def __init__(self, table: Any) -> None:
        table = table.unify_dictionaries()  # one numbering in all its chunks
        self._ends = {name: _ends(table.column(name)) for name in table.column_names}
        self._table = table
        kinds = dict(zip(table.column_names, table.schema.types, strict=True))
        super().__init__(kinds, len(table), self._rows)

    def _rows(self, indices: Indices) -> Any:
        arrow = sys.modules["pyarrow"]
        return arrow.table({name: self._of(name, indices) for name in self.names})

    def _of(self, name: str, indices: Indices) -> Any:
        """Chunk by chunk: pyarrow's own take may put all chunks together first."""
        arrow, ends = sys.modules["pyarrow"], self._ends[name]
        chunk = np.searchsorted(ends, indices, side="right")
        parts, order = [], []
        for at in np.unique(chunk):
            mine = np.flatnonzero(chunk == at)
            before = ends[at - 1] if at else 0
            held = self._table.column(name).chunk(int(at))
            parts.append(held.take(arrow.array(indices[mine] - before)))
            order.append(mine)
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return self._table.column(name).slice(0, 0)
        back = np.argsort(np.concatenate(order))
        return arrow.chunked_array(parts).combine_chunks().take(arrow.array(back))


class ArrowFiles(ArrowSource):
    """A data set of files; each batch reads the files anew, which mapped tables need not."""

    def __init__(self, files: Any) -> None:
        arrow = sys.modules["pyarrow"]
        kinds = dict(zip(files.schema.names, files.schema.types, strict=True))
        super().__init__(
            kinds, files.count_rows(), lambda indices: files.take(arrow.array(indices))
        )

    def read(self, name: str, indices: Indices) -> torch.Tensor | list[torch.Tensor]:
        if sys.modules["pyarrow"].types.is_dictionary(self._types[name]):
            raise DataError(
                f"column {name!r}: is numbered anew in each file; store the numbers themselves"
            )
        return super().read(name, indices)


def refuse_no_numbers(kind: Any, called: str) -> None:
    """Refuse by its type a column that holds no numbers.

    Raises:
        DataError: it holds text, times, structures, …
    """
    types, inner = sys.modules["pyarrow"].types, kind
    while True:
        if _shape(inner) is not None:
            inner = inner.storage_type
        elif _is_list(inner) or types.is_fixed_size_list(inner):
            inner = inner.value_type
        else:
            break
    known = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    if not (known or (inner is kind and types.is_dictionary(kind))):
        raise DataError(f"{called} holds {_told(kind)}: must be numbers or lists of them; {_MOVE}")


def values(array: Any, called: str) -> torch.Tensor:
    """A tensor of an array's values, of lists that are all of one length.

    * Whole numbers are int64, others torch's default; a dictionary's are its codes.
    """
    types, kind = sys.modules["pyarrow"].types, array.type
    if (shape := _shape(kind)) is not None:
        flat = array.storage
        while _is_list(flat.type) or types.is_fixed_size_list(flat.type):
            flat = flat.flatten()
        inner = [-1 if size is None else size for size in shape]
        return values(flat, called).reshape(len(array), *inner)
    if _is_list(kind) or types.is_fixed_size_list(kind):
        sizes = {kind.list_size} if types.is_fixed_size_list(kind) else set()
        sizes = sizes or set(array.value_lengths().to_pylist())
        if len(sizes) > 1:
            raise DataError(
                f"{called}: lists within its lists are of unequal length: must be so at the first "
                "alone; pad the inner ones before"
            )
        within = values(array.flatten(), called)
        return within.reshape(len(array), *sizes, *within.shape[1:])
    if array.null_count:
        raise DataError(f"{called}: a list has a place without a value; fill it before")
    if types.is_dictionary(kind):
        array = array.indices
    elif types.is_floating(kind):
        return numbers(array.to_numpy(zero_copy_only=False).astype(float_type()), called)
    elif types.is_boolean(kind):
        return numbers(array.to_numpy(zero_copy_only=False), called)
    found = array.to_numpy(zero_copy_only=False)
    return numbers(found if found.dtype == np.uint64 else found.astype(np.int64), called)


def rows_of(array: Any, called: str) -> list[torch.Tensor]:
    """A tensor of each list's values."""
    if _shape(array.type) is not None:
        return [values(array.slice(at, 1), called)[0] for at in range(len(array))]
    lengths = array.value_lengths().to_pylist()
    return list(values(array.flatten(), called).split(lengths))


def _whole(column: Any) -> Any:
    """One array, of a column in chunks."""
    arrow = sys.modules["pyarrow"]
    if not isinstance(column, arrow.ChunkedArray):
        return column
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return whole


def _ends(column: Any) -> Indices:
    return np.cumsum([len(chunk) for chunk in column.chunks], dtype=np.int64)


def _is_list(kind: Any) -> bool:
    types = sys.modules["pyarrow"].types
    return types.is_list(kind) or types.is_large_list(kind)


def _depth(kind: Any) -> bool:
    fixed = sys.modules["pyarrow"].types.is_fixed_size_list(kind)
    return _shape(kind) is not None or _is_list(kind) or fixed


def _shape(kind: Any) -> Any:
    """Of an extension type for arrays, such as FixedShapeTensor and Array2D; else None."""
    arrow = sys.modules["pyarrow"]
    shape = getattr(kind, "shape", None) if isinstance(kind, arrow.BaseExtensionType) else None
    return None if shape is None else tuple(shape)


def _told(kind: Any) -> str:
    text = str(kind)
    return text if len(text) < 60 else text[:60] + "…"
