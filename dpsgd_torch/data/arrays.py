"""Numpy arrays as tensors; those mapped from a file stay there, and rows are read as drawn."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import Tensor
from dpsgd_torch.data.columns import AT_ONCE, Column
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError

_KNOWN = "?bhilqefdFDBHILQ"  # kinds of numbers that torch can compute with, as they are or widened
_MOVES = {
    "O": "stack rows of equal shape by numpy.stack; of unequal length, wrap them in "
    "dpsgd_torch.Padded",
    "U": "number the words: numpy.unique(…, return_inverse=True)",
    "S": "number the words: numpy.unique(…, return_inverse=True)",
    "M": "make numbers of the times: (times - start) / numpy.timedelta64(1, 's')",
    "m": "make numbers of the times: times / numpy.timedelta64(1, 's')",
    "V": "hand over its fields as a dict of arrays",
}


def leaf(given: Any, name: str) -> torch.Tensor | Column | None:
    """A tensor of an array's values; a column of one that is mapped from a file.

    Raises:
        DataError: of values that are no numbers, or masked.
    """
    if not isinstance(given, np.ndarray):
        return None
    if isinstance(given, np.ma.MaskedArray):
        raise DataError(
            f"{name} = masked array: what is masked has no value; fill it by .filled(…), or hand "
            "over the mask as an input of its own"
        )
    _refuse_no_numbers(given, name)
    if given.ndim and (found := _mapping(given)) is not None:
        return OnDisk(given, *found, name)
    return numbers(given, name)


def numbers(array: np.ndarray[Any, Any], name: str) -> torch.Tensor:
    """A tensor of an array's values, which shares its memory where torch can have it so.

    * Unsigned numbers of 16 bits and more become int64, in which torch computes.

    >>> numbers(np.arange(3, dtype=">i2")[::-1], "x"), numbers(np.uint16([65535]), "x")
    (tensor([2, 1, 0], dtype=torch.int16), tensor([65535]))
    """
    _refuse_no_numbers(array, name)
    array = np.asarray(array)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.dtype.itemsize == 8 and array.size and array.max() > np.iinfo(np.int64).max:
            raise DataError(
                f"{name} = uint64 beyond 2⁶³: torch computes in int64; number its values anew, by "
                "numpy.unique(…, return_inverse=True)"
            )
        array = array.astype(np.int64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):  # strides that are no multiple of an element
        return torch.from_numpy(array.copy())


def _refuse_no_numbers(array: np.ndarray[Any, Any], name: str) -> None:
    kind = array.dtype
    if kind.char not in _KNOWN:
        move = _MOVES.get(kind.kind, ".astype(numpy.float64) is the widest that torch has")
        raise DataError(f"{name} = array of {kind}: must be numbers that torch knows; {move}")


def _mapping(array: np.ndarray[Any, Any]) -> tuple[mmap.mmap, bool] | None:
    """What maps a file into memory below an array, and whether all it holds is the file's.

    Pages of a copy-on-write mapping may hold what is in no file.
    """
    base: Any = array
    mode = None
    while isinstance(base, np.ndarray | memoryview):
        mode = mode or getattr(base, "mode", None)
        base = base.obj if isinstance(base, memoryview) else base.base
    return (base, mode in ("r", "r+", "w+")) if isinstance(base, mmap.mmap) else None


class OnDisk(Column):
    """Rows of a mapped file; memory holds what is drawn, and lets go of what was read.

    * ``fingerprint``: every byte up to 4 GiB; beyond it rows evenly spread.
    """

    def __init__(
        self, array: np.ndarray[Any, Any], mapping: mmap.mmap, shared: bool, name: str
    ) -> None:
        self._array, self._mapping, self._shared, self._name = array, mapping, shared, name
        self._read = 0
        self._spec = Tensor(array.shape[1:], numbers(np.zeros(1, array.dtype), name).dtype)

    def __len__(self) -> int:
        return len(self._array)

    @property
    def spec(self) -> Tensor:
        return self._spec

    def take(self, indices: Indices) -> torch.Tensor:
        rows = np.ascontiguousarray(np.asarray(self._array[indices]))
        self._let_go(rows.nbytes)
        return numbers(rows, self._name)

    def row_bytes(self) -> int:
        return max(1, self._array.itemsize * int(np.prod(self._array.shape[1:])))

    def _let_go(self, read: int) -> None:
        """Of pages that the system caches anyway: the process does not grow by them."""
        self._read += read
        if self._shared and self._read >= AT_ONCE and hasattr(mmap, "MADV_DONTNEED"):
            self._read = 0
            with contextlib.suppress(OSError, ValueError):
                self._mapping.madvise(mmap.MADV_DONTNEED)
