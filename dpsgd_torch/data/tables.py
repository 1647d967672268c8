"""Tables: which columns a model is given, and which it is to predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dpsgd_torch.data import arrow, hugging_face
from dpsgd_torch.data.base import Data
from dpsgd_torch.data.columns import Column, Parts
from dpsgd_torch.data.padded import Padded
from dpsgd_torch.data.pandas_tables import is_frame, series, side_by_side
from dpsgd_torch.data.sources import Padding, SideBySide, Source
from dpsgd_torch.data.trees import Tree
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError

Names = Any  # a column's name, a sequence of names, or a mapping argument → name


class Columns(Parts):
    """A table's columns as inputs and targets, by name.

    A pandas DataFrame, a pyarrow Table or Dataset, or a Hugging Face Dataset. A name is that column
    (n,), a list of names are numbers side by side (n, columns), and a dict {argument: name} is what
    a model, or a loss, gets by name: ``model(**inputs)``.

    * Whole numbers become int64, others torch's default dtype, categories their codes. Text, times
      and missing values are refused by the column's name.
    * Lists of unequal length are padded to a batch's longest, as ``Padded`` says.
    * A Hugging Face data set gives what its format or transform makes of a row.

    Args:
        table: in memory or mapped from disk; rows are read as they are drawn.
        targets: what is to be predicted.
        inputs: what the model is given; by default every column that is no target, side by side,
            or by name where the table is a Hugging Face data set or has lists.
        padding: by column, what fills its padding: 0 by default, −100 in targets.
        mask: column → the argument by which the model gets its mask, where the table has none.
        multiple_of: lengths are rounded up to one.
        length: pad every row to this declared one instead.

    >>> import pandas
    >>> frame = pandas.DataFrame({"age": [41, 23], "height": [1.8, 1.7], "ill": [True, False]})
    >>> Columns(frame, targets="ill").take(torch.tensor([1]).numpy())
    (tensor([[23.0000,  1.7000]]), tensor([False]))
    """

    def __init__(
        self,
        table: Any,
        *,
        targets: Names,
        inputs: Names | None = None,
        padding: Mapping[str, float] | None = None,
        mask: Mapping[str, str] | None = None,
        multiple_of: int = 8,
        length: int | None = None,
    ) -> None:
        source = opened(table)
        if source is None:
            raise DataError(
                f"table = {type(table).__name__}: must be a pandas DataFrame, a pyarrow Table or "
                "Dataset, or a Hugging Face Dataset; a dict of tensors is handed over as it is"
            )
        if len(source) == 0:
            raise DataError("table has 0 rows: must be > 0; hand over at least one record")
        padded = Padding(dict(padding or {}), multiple_of, length)
        predicted = _read(source, targets, "targets", padded)
        if inputs is None:
            left = [name for name in source.names if name not in _names(targets)]
            if not left:
                raise DataError("inputs = None: every column is a target; name some by inputs=…")
            inputs = {str(name): name for name in left} if source.by_name else left
        found = _read(source, inputs, "inputs", padded)
        for column, argument in (mask or {}).items():
            given = source.column(column, "mask", padded, target=False)
            found = _with_mask(found, given, column, argument)
        super().__init__(found, predicted)


def as_data(given: Any, device: str | torch.device, name: str) -> Data | None:
    """Refuse a table of which nobody says what is to be predicted; None of anything else.

    Raises:
        DataError: it is one, or several, or a stream.
    """
    try:
        alone = opened(given) is not None
    except DataError as error:
        raise DataError(f"{name} = {error}") from None
    if alone:
        raise DataError(
            f"{name} = {type(given).__name__}: nobody says which columns are to be predicted; "
            "hand over dpsgd_torch.Columns(table, targets=…)"
        )
    return None


def opened(table: Any) -> Source | None:
    """A source of a table's rows; None of what no kind of table is."""
    if is_frame(table):
        return _Frame(table)
    return arrow.opened(table) or hugging_face.opened(table)


class _Frame(Source):
    """A pandas frame, whose columns are in memory."""

    by_name = False

    def __init__(self, frame: Any) -> None:
        self._frame, self.names = frame, list(frame.columns)
        if not frame.columns.is_unique:
            raise DataError("table: two columns bear one name; rename one")

    def __len__(self) -> int:
        return len(self._frame)

    def unequal(self, name: str) -> bool:
        return False

    def column(
        self, name: str, where: str, padding: Padding, *, target: bool
    ) -> Column | torch.Tensor:
        if name not in self.names:
            return super().column(name, where, padding, target=target)
        return series(self._frame[name], "table")

    def read(self, name: str, indices: Indices) -> torch.Tensor:
        return series(self._frame[name].iloc[indices], "table")


def _names(asked: Names) -> list[Any]:
    if isinstance(asked, Mapping):
        return list(asked.values())
    return list(asked) if isinstance(asked, list | tuple) else [asked]


def _read(source: Source, asked: Names, part: str, padding: Padding) -> Tree:
    def one(name: Any) -> Column | torch.Tensor:
        return source.column(name, part, padding, target=part == "targets")

    if isinstance(asked, Mapping):
        return {argument: one(name) for argument, name in asked.items()}
    if not isinstance(asked, list | tuple):
        return one(asked)
    columns = [one(name) for name in asked]
    if not columns:
        raise DataError(f"{part} = []: must name a column at least")
    for name, column in zip(asked, columns, strict=True):
        if isinstance(column, Column) and column.spec.shape:
            raise DataError(
                f"{part} = {list(asked)}: {name!r} is no column of single numbers, so none can "
                f"stand beside it; pass {part}={{argument: column}} or one name"
            )
    tensors = [column for column in columns if isinstance(column, torch.Tensor)]
    return side_by_side(tensors) if len(tensors) == len(columns) else SideBySide(columns)


def _with_mask(inputs: Tree, padded: Column | torch.Tensor, column: str, argument: str) -> Tree:
    if not isinstance(padded, Padded):
        raise DataError(f"mask = {column!r}: is of equal length in every row; leave it out")
    if not isinstance(inputs, Mapping) or argument in inputs:
        raise DataError(
            f"mask: the model gets {argument!r} by name, beside inputs that bear another; pass "
            "inputs={argument: column}"
        )
    return {**inputs, argument: padded.mask}
