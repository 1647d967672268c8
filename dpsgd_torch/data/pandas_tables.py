"""Pandas frames and series as tensors: numbers, truth values and categories, column by column."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.arrays import numbers
from dpsgd_torch.data.trees import leaves
from dpsgd_torch.errors import DataError


def leaf(given: Any, name: str) -> torch.Tensor | None:
    """A series as a tensor (n,), a frame as one of (n, columns); None of anything else.

    Raises:
        DataError: a column holds no numbers, or a value is missing where there is no NaN.
    """
    if is_frame(given):
        if given.shape[1] == 0:
            raise DataError(f"{name} = DataFrame of no column; hand over one at least")
        columns = [series(given.iloc[:, at], name) for at in range(given.shape[1])]
        return side_by_side(columns)
    if _is(given, "Series"):
        return series(given, name)
    if _is(given, "Categorical") or _is(given, "Index"):
        return series(sys.modules["pandas"].Series(given), name)
    return None


def is_frame(given: Any) -> bool:
    return _is(given, "DataFrame")


def _is(given: Any, kind: str) -> bool:
    """Whether it is pandas' own, without loading pandas for what is not."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(given, getattr(pandas, kind))


def side_by_side(columns: list[torch.Tensor]) -> torch.Tensor:
    """Columns (n,) as one tensor (n, columns), of a dtype that holds them all.

    >>> side_by_side([torch.tensor([1, 2]), torch.tensor([0.5, 1.0])])
    tensor([[1.0000, 0.5000],
            [2.0000, 1.0000]])
    """
    dtype = functools.reduce(torch.promote_types, [column.dtype for column in columns])
    return torch.stack([column.to(dtype) for column in columns], 1)


def series(column: Any, name: str) -> torch.Tensor:
    """A column's values: int64, bool, or floats as torch's default.

    * Categories become their codes, from 0 in the categories' order.

    Raises:
        DataError: by the column's name.
    """
    types = sys.modules["pandas"].api.types
    kind, called = column.dtype, f"{name}: column {column.name!r}"
    if isinstance(kind, sys.modules["pandas"].CategoricalDtype):
        codes = column.cat.codes.to_numpy()
        if (codes < 0).any():
            raise _missing(called)
        return torch.from_numpy(codes.astype(np.int64))
    if types.is_bool_dtype(kind):
        wanted: Any = np.bool_
    elif types.is_integer_dtype(kind):
        wanted = np.uint64 if types.is_unsigned_integer_dtype(kind) else np.int64
    elif types.is_float_dtype(kind):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return torch.from_numpy(values.astype(float_type()))
    else:
        raise DataError(f"{called} holds {kind}: must be numbers; {_move(column, types)}")
    if column.isna().any():
        raise _missing(called)
    return numbers(column.to_numpy(dtype=wanted), called)


def float_type() -> Any:
    """Torch's default dtype, as a numpy one: float32, unless it was set to another."""
    return torch.empty(0).numpy().dtype


def _missing(called: str) -> DataError:
    return DataError(
        f"{called} has rows without a value: must have one in each; fill them by .fillna(…), or "
        "leave those rows out by .dropna()"
    )


def _move(column: Any, types: Any) -> str:
    if types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return "make numbers of its times, such as days since a fixed one"
    first = column.iloc[0] if len(column) else None
    if isinstance(first, list | tuple | np.ndarray):
        return "pad its sequences by dpsgd_torch.Padded(list(column))"
    return (
        "leave it out, or number its values: .astype('category') for classes, pandas.get_dummies "
        "for a column each"
    )


def refuse_other_order(pair: Any, name: str) -> None:
    """Refuse frames and series whose indexes differ: row by row they would not belong together."""
    indexed = [leaf.index for leaf in leaves(pair) if is_frame(leaf) or _is(leaf, "Series")]
    for index in indexed[1:]:
        if len(index) == len(indexed[0]) and not index.equals(indexed[0]):
            raise DataError(
                f"{name}: the index of one table is not that of another, and rows are taken by "
                "their place: bring them into one order by .loc[other.index], or drop both "
                "indexes by .reset_index(drop=True)"
            )
