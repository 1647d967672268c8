"""Padding of sequences of unequal length: each batch to its longest, with a mask of what counts."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from accountant.errors import check
from dpsgd_torch.data.arrays import numbers
from dpsgd_torch.data.base import Piece, Tensor
from dpsgd_torch.data.columns import WHOLE, Column, blocks
from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError, told


class Sequences(abc.ABC):
    """Rows of unequal length, as a list, a table or a file holds them."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @property
    @abc.abstractmethod
    def spec(self) -> Tensor:
        """Shape and dtype of one element of a sequence, the same throughout."""

    @abc.abstractmethod
    def get(self, indices: Indices) -> list[torch.Tensor]:
        """The sequences of these rows."""

    def own_fingerprint(self) -> str:
        """What a table says of its content, where it is too large to pass over; else ""."""
        return ""


class Padded(Column):
    """Sequences of unequal length, padded with ``value`` to a batch's longest.

    * ``mask`` is a column of ones where a sequence is and of zeros where it is padded: hand it to
      the model beside the sequences (``attention_mask``), and let the loss leave padding out.
    * How far a row is padded tells how long the others of its batch are. So a model or loss whose
      gradient changes with padding is refused, before anything is charged. Pad all rows to one
      declared ``length`` where it must see padding: then nothing depends on the others.

    Args:
        sequences: tensors, arrays or lists, or a nested tensor; the first dimension is padded.
        value: what padding holds: 0 by default, the tokenizer's ``pad_token_id``, −100 in targets.
        multiple_of: lengths are rounded up to one, so that fewer shapes are met.
        length: pad every row to this declared one instead; a longer row is refused.

    >>> words = Padded([[5, 6, 7], [8]], multiple_of=1)
    >>> words.take(np.array([1, 0]))
    tensor([[8, 0, 0],
            [5, 6, 7]])
    >>> words.mask.take(np.array([1]))
    tensor([[1]])
    """

    def __init__(
        self,
        sequences: Any,
        value: float = 0,
        *,
        multiple_of: int = 8,
        length: int | None = None,
    ) -> None:
        check(multiple_of >= 1, "multiple_of", multiple_of, "must be ≥ 1")
        check(length is None or length >= 1, "length", length, "must be ≥ 1, or None")
        self._given = sequences if isinstance(sequences, Sequences) else _Listed(sequences)
        self._value, self._multiple, self._length = value, multiple_of, length
        element = self._given.spec
        try:
            fits = torch.full((1,), value, dtype=element.dtype).tolist() == [value]
        except RuntimeError:
            fits = False
        if not fits:
            raise DataError(f"value = {value}: is no {element.dtype}; pad with one that is")
        self._spec = Tensor((length, *element.shape), element.dtype)

    def __len__(self) -> int:
        return len(self._given)

    @property
    def spec(self) -> Tensor:
        return self._spec

    @property
    def mask(self) -> Column:
        """1 where a sequence is, 0 where it is padded: int64, of shape (length,)."""
        return _Mask(self)

    def take(self, indices: Indices) -> torch.Tensor:
        rows = self._given.get(indices)
        length, inner = self._common(rows, indices), self._spec.shape[1:]
        shape = [len(rows), length, *(size or 0 for size in inner)]
        padded = torch.full(shape, self._value, dtype=self._spec.dtype)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        return padded

    def kept(self, indices: Indices) -> torch.Tensor:
        """The mask of these rows."""
        rows = self._given.get(indices)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        return (torch.arange(self._common(rows, indices)) < lengths[:, None]).long()

    def fingerprint(self) -> Iterator[Piece]:
        own = self._given.own_fingerprint()
        yield f"padded {self._value} {self._multiple} {self._length} {own} ".encode()
        if own:
            return
        for rows in blocks(len(self), self.row_bytes()):
            found = self._given.get(rows)
            yield np.array([len(row) for row in found], dtype=np.int64).tobytes()
            yield from map(raw_bytes, found)

    @property
    def told_whole(self) -> bool:
        small = len(self) * self.row_bytes() <= WHOLE
        return small and not self._given.own_fingerprint()

    def _common(self, rows: list[torch.Tensor], indices: Indices) -> int:
        longest = max((len(row) for row in rows), default=0)
        if self._length is None:
            return max(1, -(-longest // self._multiple)) * self._multiple
        if longest > self._length:
            row = next(int(i) for i, row in zip(indices, rows, strict=True) if len(row) == longest)
            raise DataError(
                f"row {row} has {longest} elements: must be ≤ length = {self._length}; cut it "
                "short before, or declare a longer length"
            )
        return self._length


class _Mask(Column):
    def __init__(self, padded: Padded) -> None:
        self._padded = padded

    def __len__(self) -> int:
        return len(self._padded)

    @property
    def spec(self) -> Tensor:
        return Tensor(self._padded.spec.shape[:1], torch.int64)

    def take(self, indices: Indices) -> torch.Tensor:
        return self._padded.kept(indices)

    def fingerprint(self) -> Iterator[Piece]:
        yield from self._padded.fingerprint()

    @property
    def told_whole(self) -> bool:
        return self._padded.told_whole


class _Listed(Sequences):
    """A list of tensors, arrays or lists of numbers, alike but for their length."""

    def __init__(self, given: Any) -> None:
        if isinstance(given, torch.Tensor) and given.is_nested:
            given = given.unbind()
        fits = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str | bytes)
        if not fits or len(given) == 0:
            raise DataError(
                f"sequences = {type(given).__name__}: must be a list of at least one tensor, array "
                "or list; list(…) makes one"
            )
        self._rows = [_sequence(row, number) for number, row in enumerate(given)]
        # an empty list says nothing of what its elements would be
        self._spec = Tensor.of(next((row for row in self._rows if len(row)), self._rows[0]))
        for number, row in enumerate(self._rows):
            if len(row) and Tensor.of(row) != self._spec:
                raise DataError(
                    f"sequences: row {number} has elements of {_told(Tensor.of(row))} where "
                    f"others have {_told(self._spec)}: must differ in length alone; make them alike"
                )
        self._empty = torch.zeros(0, *(size or 0 for size in self._spec.shape)).to(self._spec.dtype)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def spec(self) -> Tensor:
        return self._spec

    def get(self, indices: Indices) -> list[torch.Tensor]:
        found = [self._rows[index] for index in indices]
        return [row if len(row) else self._empty for row in found]


def _sequence(row: Any, number: int) -> torch.Tensor:
    name = f"sequences: row {number}"
    if isinstance(row, np.ndarray):
        made = numbers(row, name)
    elif isinstance(row, torch.Tensor):
        made = row.detach()
    else:
        try:
            made = torch.as_tensor(row)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{name} = {type(row).__name__}: must be a tensor, array or list of numbers "
                f"({told(error)}); number its words or stack its rows before"
            ) from None
    if made.ndim == 0:
        raise DataError(f"{name} = one number: must be a sequence; hand over plain columns as such")
    return made


def _told(spec: Tensor) -> str:
    return f"{spec.dtype} of shape {tuple(spec.shape)}"


def leaf(given: Any, name: str) -> None:
    """Refuse a nested tensor: what of it is padding is for a mask to say.

    Raises:
        DataError: it is one.
    """
    if isinstance(given, torch.Tensor) and given.is_nested:
        raise DataError(
            f"{name} = nested tensor: its rows are of unequal length, and the model must be told "
            "what is padding; wrap it: words = dpsgd_torch.Padded(…), then hand over words and "
            "words.mask"
        )
