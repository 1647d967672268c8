"""Unit ids of any hashable type: which rows are whose, and what of it a resumed run must share."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import Piece
from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.data.units import Indices, UnitRows
from dpsgd_torch.errors import DataError, shown

_RULE = "must be one whole number, text, a tuple of them or another hashable id"


class UnitIds:
    """One id a record: the rows of each unit, and a digest that no hash seed changes.

    * Ids that are equal in Python are one unit (1, 1.0 and True); a missing one (None, NaN, NaT) is
      refused by its row, for its records would be nobody's.
    * Units are numbered in the order of their ids: by size where they are numbers, else by what
      they are written as.
    """

    def __init__(self, given: Any, records: int) -> None:
        found = _plain(given)
        if len(found) != records:
            raise DataError(
                f"units = {len(found)} ids: must be one whole number for each of the {records} "
                "records, or text, or another hashable id; hand over one a record, in their order"
            )
        if isinstance(found, torch.Tensor):
            self.rows = UnitRows.of(found.cpu().numpy().astype(np.int64))
            self._pieces: list[Piece] = [raw_bytes(found)]
            return
        codes, written = _numbered(found)
        self.rows = UnitRows.of(codes)
        self._pieces = [*(len(w).to_bytes(8, "big") + w for w in written), codes.tobytes()]

    def fingerprint(self) -> Iterator[Piece]:
        """Bytes that a resumed run must share."""
        yield from self._pieces


def units_of(ids: Any, records: int) -> UnitRows:
    """The rows of each unit, from one id a record.

    Raises:
        DataError: not one a record, or one that is missing or cannot be told again.

    >>> units_of(["bob", "ann", "bob"], 3).codes
    array([1, 0, 1])
    """
    return UnitIds(ids, records).rows


def _plain(given: Any) -> torch.Tensor | list[Any]:
    """Whole numbers as a tensor, whatever else as a list of Python's own objects."""
    if hasattr(given, "to_pylist"):  # pyarrow's
        given = given.to_pylist()
    if hasattr(given, "to_numpy") and not isinstance(given, np.ndarray):  # pandas'
        given = given.to_numpy()
    elif type(given).__module__.startswith("pandas."):  # a Categorical
        given = np.asarray(given)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DataError(f"units = {shown(given)}: must be a list or array of one id a record")
    if not isinstance(given, torch.Tensor | np.ndarray):
        given = [each.item() if _is_scalar(each) else each for each in given]
        try:
            whole = given and all(isinstance(each, int | np.integer | np.bool_) for each in given)
            return torch.as_tensor(given) if whole else given
        except (OverflowError, RuntimeError, ValueError):  # larger than 64 bits
            return given
    if isinstance(given, np.ndarray) and given.dtype.kind in "biu":
        try:
            given = torch.as_tensor(given)
        except (TypeError, ValueError):  # another byte order, or a negative stride
            given = torch.as_tensor(np.ascontiguousarray(given, given.dtype.newbyteorder("=")))
    if isinstance(given, torch.Tensor) and not (given.is_floating_point() or given.is_complex()):
        return _flat(given)
    return [_whole(each) for each in _flat(given).tolist()]


def _is_scalar(each: Any) -> bool:
    """A tensor of one number, which is hashed by where it lies."""
    return isinstance(each, torch.Tensor) and each.ndim == 0


def _flat(given: Any) -> Any:
    if given.ndim != 1:
        raise DataError(
            f"units = {given.dtype} of shape {tuple(given.shape)}: must be one whole number for "
            "each of the records, or another hashable id; where several columns are an id, zip "
            "them to tuples"
        )
    return given


def _whole(each: Any) -> Any:
    return int(each) if isinstance(each, float) and each.is_integer() else each


def _numbered(ids: list[Any]) -> tuple[Indices, list[bytes]]:
    """A number for each record's unit, in the order of ids; and how each id is written."""
    first: dict[Any, int] = {}
    place = np.empty(len(ids), np.int64)
    for row, each in enumerate(ids):
        try:
            place[row] = first.setdefault(each, len(first))
        except TypeError:
            raise _refused(row, each, "is not hashable", "make it a tuple") from None
        if place[row] == len(first) - 1 and _missing(each):
            raise _refused(row, each, "is missing", "give that row an id, or leave it out")
        if isinstance(each, float) and place[row] == len(first) - 1 and not each.is_integer():
            raise _refused(row, each, "is a fraction", "round what was meant to be whole")
    written, rows = [], {number: row for row, number in reversed(list(enumerate(place.tolist())))}
    for each, number in first.items():
        try:
            written.append(_written(each))
        except TypeError:
            raise _refused(
                rows[number],
                each,
                "cannot be told again in another process",
                "hand over text or numbers, or give its class a __repr__",
            ) from None
    seen: dict[bytes, int] = {}
    for number, found in enumerate(written):
        if (other := seen.setdefault(found, number)) != number:
            raise _refused(
                rows[number],
                next(each for each in first if first[each] == number),
                f"is another than that of row {rows[other]}, which looks the same",
                "give its class __eq__ and __hash__, or hand over text or numbers",
            )
    try:
        order = sorted(first.values(), key=list(first).__getitem__)
    except TypeError:  # no order between them
        order = sorted(first.values(), key=written.__getitem__)
    codes = np.empty(len(first), np.int64)
    codes[order] = np.arange(len(first))
    return codes[place], [written[number] for number in order]


def _refused(row: int, each: Any, why: str, move: str) -> DataError:
    return DataError(f"units: the id of row {row} ({type(each).__name__}) {why}: {_RULE}; {move}")


def _missing(each: Any) -> bool:
    if each is None or type(each).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(each, np.datetime64 | np.timedelta64):
        return bool(np.isnat(each))
    if isinstance(each, tuple | frozenset):
        return any(map(_missing, each))
    return isinstance(each, float | np.floating) and bool(np.isnan(each))


def _written(each: Any) -> bytes:
    """The same bytes in every process, and others for another id.

    Raises:
        TypeError: its type says no more of it than where it lies in memory.
    """
    if isinstance(each, np.generic):
        each = each.item()
    if isinstance(each, str):
        return b"s" + each.encode("utf-8", "surrogatepass")
    if isinstance(each, bytes):
        return b"b" + each
    if isinstance(each, bool | int | float | complex):
        return b"n" + repr(each).encode()
    if isinstance(each, uuid.UUID):
        return b"u" + each.bytes
    if isinstance(each, enum.Enum):
        return b"e" + f"{_kind(each)}.{each.name}".encode()
    if isinstance(each, tuple | frozenset):
        parts = [_written(part) for part in each]
        parts = sorted(parts) if isinstance(each, frozenset) else parts
        return b"t" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    if dataclasses.is_dataclass(each):
        fields = tuple(getattr(each, field.name) for field in dataclasses.fields(each))
        return b"d" + _kind(each).encode() + _written(fields)
    if " at 0x" in repr(each):  # as an object's own, if no class says better
        raise TypeError
    return b"o" + f"{_kind(each)}{each!r}".encode("utf-8", "surrogatepass")


def _kind(each: Any) -> str:
    return f"{type(each).__module__}.{type(each).__qualname__}"
