"""Sparse matrices, of torch or scipy: rows are made dense as they are drawn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.arrays import numbers
from dpsgd_torch.data.base import Piece, Tensor
from dpsgd_torch.data.columns import Column
from dpsgd_torch.data.tensors import raw_pieces
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError


def leaf(given: Any, name: str) -> Column | torch.Tensor | None:
    """A column of a sparse matrix; torch's unsigned numbers beyond a byte as int64.

    Raises:
        DataError: sparse, but no matrix whose rows are the records.
    """
    if isinstance(given, torch.Tensor):
        if given.layout is not torch.strided and not given.is_nested:
            return _of_torch(given, name)
        wide = given.dtype in (torch.uint16, torch.uint32, torch.uint64)
        return numbers(given.cpu().numpy(), name) if wide else None
    scipy = sys.modules.get("scipy.sparse")
    if scipy is None or not scipy.issparse(given):
        return None
    if given.ndim != 2:
        raise _no_matrix(name, tuple(given.shape))
    rows = given.tocsr()
    return SparseRows(rows.indptr, rows.indices, numbers(rows.data, name), rows.shape)


def _of_torch(given: torch.Tensor, name: str) -> Column:
    if given.ndim != 2 or (given.layout is torch.sparse_coo and given.dense_dim()):
        raise _no_matrix(name, tuple(given.shape))
    if given.layout is torch.sparse_coo:
        whole = given.coalesce()
        (row, column), values = whole.indices().cpu().numpy(), whole.values()
        starts = np.searchsorted(row, np.arange(len(given) + 1))
        return SparseRows(starts, column, values.cpu(), tuple(given.shape))
    if given.layout is torch.sparse_csr:
        starts, column = given.crow_indices().cpu().numpy(), given.col_indices().cpu().numpy()
        return SparseRows(starts, column, given.values().cpu(), tuple(given.shape))
    raise DataError(
        f"{name} = tensor of layout {given.layout}: its rows cannot be read one by one; hand over "
        ".to_sparse_csr() or .to_dense()"
    )


def _no_matrix(name: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{name} = sparse of shape {shape}: must be a matrix, its rows the records; hand over "
        ".to_dense(), or reshape it"
    )


class SparseRows(Column):
    """Compressed rows; an entry that is there twice counts as the sum of both."""

    def __init__(
        self, starts: Any, columns: Any, values: torch.Tensor, shape: tuple[int, ...]
    ) -> None:
        self._starts, self._columns = starts.astype(np.int64), columns.astype(np.int64)
        self._values, self._shape = values.detach(), shape

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def spec(self) -> Tensor:
        return Tensor((self._shape[1],), self._values.dtype)

    def take(self, indices: Indices) -> torch.Tensor:
        counts = self._starts[indices + 1] - self._starts[indices]
        row = np.repeat(np.arange(len(indices)), counts)
        within = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
        entry = self._starts[indices][row] + within
        dense = torch.zeros(len(indices), self._shape[1], dtype=self._values.dtype)
        at = torch.from_numpy(row), torch.from_numpy(self._columns[entry])
        return dense.index_put_(at, self._values[torch.from_numpy(entry)], accumulate=True)

    def fingerprint(self) -> Iterator[Piece]:
        yield f"sparse {self._shape} ".encode()
        for part in (self._starts, self._columns):
            yield from raw_pieces(torch.from_numpy(part))
        yield from raw_pieces(self._values)

    @property
    def told_whole(self) -> bool:
        return True
