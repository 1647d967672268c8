"""Hugging Face data sets: columns by name, in the format that they are set to give."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.arrays import numbers
from dpsgd_torch.data.arrow import ArrowSource
from dpsgd_torch.data.columns import WHOLE
from dpsgd_torch.data.pandas_tables import float_type
from dpsgd_torch.data.sources import Padding, Source
from dpsgd_torch.data.trees import Tree
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError, told

_AS_ARROW = (None, "arrow", "pandas", "polars")  # formats of which the arrow table is read itself
_SOME = 16  # rows that are looked at for what a transform gives


def leaf(given: Any, name: str) -> Tree | None:
    """Columns by name of a data set, or one column of it; None of anything else."""
    library = sys.modules.get("datasets")
    if library is None:
        return None
    target = name.rsplit(": ", 1)[-1].startswith("targets")
    column = getattr(library, "Column", None) or sys.modules["datasets.arrow_dataset"].Column
    if isinstance(given, column):
        if not isinstance(given.source, library.Dataset):
            raise DataError(f"{name}: is a column within a column; flatten the data set before")
        source = opened(given.source)
        assert source is not None
        return source.column(given.column_name, name, Padding(), target=target)
    found = opened(given)
    if found is None:
        return None
    return {each: found.column(each, name, Padding(), target=target) for each in found.names}


def opened(given: Any) -> Source | None:
    """A source of a data set's rows; None of anything else.

    Raises:
        DataError: several splits, or a stream, which has no random access.
    """
    library = sys.modules.get("datasets")
    if library is None:
        return None
    if isinstance(given, library.DatasetDict):
        known = ", ".join(map(str, given))
        raise DataError(f"DatasetDict: has several splits; hand over one of {known}")
    if isinstance(given, library.IterableDataset | library.IterableDatasetDict):
        raise DataError(
            "IterableDataset: a stream has neither a length nor random access, and a Poisson "
            "sample needs both; load it without streaming=True"
        )
    if not isinstance(given, library.Dataset):
        return None
    return _Arrow(given) if given.format["type"] in _AS_ARROW else _Formatted(given)


def own_fingerprint(given: Any) -> str:
    """The library's, which knows how the data set was made; "" where its rows are hashed."""
    return str(given._fingerprint) if given.data.nbytes > WHOLE else ""


class _Arrow(ArrowSource):
    """Read as the arrow table it is."""

    def __init__(self, given: Any) -> None:
        names = given.format["columns"]
        self._given = given.with_format("arrow", columns=names)
        schema = given.features.arrow_schema
        kinds = {name: schema.field(name).type for name in names}
        super().__init__(kinds, len(given), lambda indices: self._given[indices])
        self.by_name = True

    def own_fingerprint(self) -> str:
        return own_fingerprint(self._given)


class _Formatted(Source):
    """Read as its format or transform gives it: tensors, arrays, lists of them.

    * A transform is handed one row at a time, though the library's are made for many: no example
      can depend on who else is drawn.
    """

    by_name = True

    def __init__(self, given: Any) -> None:
        self._given = given
        self._alone = given.format["type"] == "custom"
        self._last: tuple[bytes, Any] = b"", None
        some = self._rows(np.arange(min(_SOME, len(given))))
        self.names = list(some)
        self._unequal = {name: _differ(some[name]) for name in some}

    def __len__(self) -> int:
        return len(self._given)

    def unequal(self, name: str) -> bool:
        return self._unequal[name]

    def read(self, name: str, indices: Indices) -> torch.Tensor | list[torch.Tensor]:
        found, called = self._once(name, indices), f"column {name!r}"
        if isinstance(found, torch.Tensor | np.ndarray) and found.dtype != object:
            whole = _tensor(found, called)
            return list(whole) if self.unequal(name) else whole
        rows = [
            _tensor(row, f"{called}: row {index}")
            for index, row in zip(indices, found, strict=True)
        ]
        if self.unequal(name):
            return rows
        for index, row in zip(indices, rows, strict=True):
            if row.shape != rows[0].shape or row.dtype != rows[0].dtype:
                raise DataError(
                    f"{called}: row {index} is {row.dtype} of shape {tuple(row.shape)} where "
                    f"others are {rows[0].dtype} of shape {tuple(rows[0].shape)}; make them alike"
                )
        return torch.stack(rows) if rows else torch.zeros(0)

    def own_fingerprint(self) -> str:
        return own_fingerprint(self._given)

    def _once(self, name: str, indices: Indices) -> Any:
        """A column of what was read with others; read anew the next time, as it may differ then."""
        if self._last[0] != indices.tobytes() or name not in self._last[1]:
            self._last = indices.tobytes(), dict(self._rows(indices))
        return self._last[1].pop(name)

    def _rows(self, indices: Indices) -> Any:
        return self._one_by_one(indices) if self._alone else self._given[indices]

    def _one_by_one(self, indices: Indices) -> dict[str, list[Any]]:
        if not len(indices):
            return {name: [] for name in self.names}
        rows = [self._given[[int(index)]] for index in indices]
        for index, row in zip(indices, rows, strict=True):
            for name, found in row.items():
                if len(found) != 1:
                    raise DataError(
                        f"column {name!r}: row {index}: the transform gives {len(found)} for one "
                        "row; let it give as many rows as it is handed"
                    )
        return {name: [row[name][0] for row in rows] for name in rows[0]}


def _differ(rows: Any) -> bool:
    """Whether rows are sequences of unequal length; a list may be so where a tensor is as it is."""
    if isinstance(rows, torch.Tensor) or (isinstance(rows, np.ndarray) and rows.dtype != object):
        return False
    first = rows[0]
    if isinstance(first, list | tuple):
        return True
    return getattr(first, "ndim", 0) > 0 and len({len(row) for row in rows}) > 1


def _tensor(value: Any, called: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        made = value
    else:
        try:
            made = numbers(np.asarray(value), called)
        except DataError:
            raise DataError(
                f"{called} holds {type(value).__name__}: must be numbers; leave the column out, or "
                "let .with_format('torch') or .with_transform(…) make tensors of it"
            ) from None
        except (TypeError, ValueError) as error:
            raise DataError(f"{called} is no array of numbers ({told(error)})") from None
    if made.dtype is torch.float64:
        made = made.to(numbers(np.zeros(1, float_type()), called).dtype)
    return made
