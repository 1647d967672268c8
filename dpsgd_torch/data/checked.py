"""What users hand over as data, on one device and held to what it declares."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import Batch, Data, Piece, Schema, Tensor, Wanted, rows_at_once
from dpsgd_torch.data.in_memory import InMemory, refuse_odd_tree
from dpsgd_torch.data.kinds import as_data
from dpsgd_torch.data.tensors import refusing_device
from dpsgd_torch.data.trees import Tree, kinds, mapped, named, placed, structure
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import DataError, told


def data_on(device: str | torch.device, given: Any, name: str) -> Data:
    """Whatever a kind of data can be made of, with its rows on ``device``.

    Raises:
        DataError: no kind knows it, or one that does not say its length and schema.
    """
    data = given if isinstance(given, Data) else as_data(given, device, name)
    if data is None:
        return InMemory.of(given, device, name)
    return data.on(device) if type(data) is InMemory else Checked(data, device, name)


class Checked(Data):
    """Another's rows: at each take one for each index, of the declared shapes and dtypes.

    * What is refused is refused before a charge where the pass over all rows meets it
      (``training/first_pass.py``); later it ends the step, whose charge stands.
    """

    def __init__(self, given: Data, device: str | torch.device, name: str) -> None:
        self._given, self._name = given, f"{name} = {type(given).__name__}"
        with refusing_device(device):
            self._device = torch.zeros(0, device=device).device
        try:
            self._length, self._schema = len(given), given.schema
        except Exception as error:  # whatever the user's code raises
            raise self._failed("length or schema", error) from None
        if self._length < 1:
            raise DataError(f"{self._name}: len = 0: must be > 0; hand over at least one row")
        if not isinstance(self._schema, Schema):
            raise DataError(
                f"{self._name}: schema = {type(self._schema).__name__}: must be a "
                "dpsgd_torch.data.base.Schema"
            )
        for part in ("inputs", "targets"):
            self._refuse_no_schema(part)

    def __len__(self) -> int:
        return self._length

    def take(self, indices: Indices) -> Batch:
        try:
            got = self._given.take(indices.copy())
        except Exception as error:  # whatever the user's code raises
            raise self._failed(_named(indices), error) from None
        return self._held(indices, got)

    def ahead(self, wanted: Iterable[Wanted]) -> Generator[Batch]:
        asked: deque[Indices] = deque()

        def noted() -> Iterator[Wanted]:
            for each in wanted:
                asked.append(each.rows)
                yield Wanted(each.rows.copy(), each.key)

        batches = self._given.ahead(noted())
        try:
            while True:
                try:
                    got = next(batches)
                except StopIteration:
                    return
                except Exception as error:  # whatever the user's code raises
                    at = asked[0] if asked else np.zeros(0, np.int64)
                    raise self._failed(_named(at), error) from None
                yield self._held(asked.popleft(), got)
        finally:
            batches.close()

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        size = size or rows_at_once(self._schema)
        starts = range(0, len(self), size)
        yield from self.ahead(
            Wanted(np.arange(start, min(start + size, len(self)))) for start in starts
        )

    def _held(self, indices: Indices, got: Any) -> Batch:
        """What was taken, held to what is declared."""
        try:
            now = len(self._given)
        except Exception as error:  # whatever the user's code raises
            raise self._failed("length", error) from None
        if now != self._length:
            raise DataError(
                f"{self._name}: len = {now}: was {self._length}; a data set keeps its rows for as "
                "long as it is trained on"
            )
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise DataError(
                f"{self._name}: take returned {type(got).__name__}: must be (inputs, targets)"
            )
        return (
            self._part("inputs", got[0], indices),
            self._part("targets", got[1], indices),
        )

    def _part(self, part: str, rows: Any, indices: Indices) -> Tree:
        wanted = getattr(self._schema, part)
        if isinstance(wanted, Tensor):
            return self._tensor(part, rows, wanted, indices)
        if structure(rows) != structure(wanted):
            raise DataError(
                f"{self._name}: {part} of {_named(indices)} = {kinds(rows)}: must be "
                f"{kinds(wanted)}, as its schema says; mend take or schema"
            )
        return mapped(
            lambda spec, leaf, name: self._tensor(name, leaf, spec, indices),
            wanted,
            rows,
            placed(wanted, part),
        )

    def _tensor(self, part: str, rows: Any, wanted: Tensor, indices: Indices) -> torch.Tensor:
        if not isinstance(rows, torch.Tensor):
            raise DataError(
                f"{self._name}: {part} = {type(rows).__name__}: must be a tensor; "
                "torch.from_numpy makes one"
            )
        shape = (len(indices), *wanted.shape)
        fits = len(shape) == rows.ndim and all(
            size in (None, given) for size, given in zip(shape, rows.shape, strict=True)
        )
        if rows.dtype != wanted.dtype or not fits:
            raise DataError(
                f"{self._name}: {part} of {_named(indices)} = {rows.dtype} of shape "
                f"{tuple(rows.shape)}: must be {wanted.dtype} of shape {shape}, a row for each "
                "index as its schema says; mend take or schema"
            )
        return rows.detach().to(self._device, non_blocking=rows.is_pinned())

    @property
    def schema(self) -> Schema:
        return self._schema

    def fingerprint(self) -> Iterator[Piece]:
        try:
            for piece in self._given.fingerprint():
                memoryview(piece)
                yield piece
        except Exception as error:  # whatever the user's code raises
            raise self._failed("fingerprint", error) from None

    @property
    def told_whole(self) -> bool:
        return self._given.told_whole

    def _refuse_no_schema(self, part: str) -> None:
        tree = getattr(self._schema, part)
        refuse_odd_tree(tree, f"{self._name}: schema.{part}")
        for name, leaf in named(tree, part):
            if not isinstance(leaf, Tensor):
                raise DataError(
                    f"{self._name}: schema.{name} = {type(leaf).__name__}: must be a "
                    "dpsgd_torch.data.base.Tensor"
                )

    def _failed(self, what: str, error: Exception) -> DataError:
        if isinstance(error, DataError):  # one line already
            return DataError(f"{self._name}: {error}")
        refusal = DataError(f"{self._name}: {what} cannot be had ({told(error)}); mend its code")
        return refusal.with_traceback(error.__traceback__)


def _named(indices: Indices) -> str:
    if len(indices) == 0:
        return "no rows"
    if len(indices) == 1:
        return f"row {indices[0]}"
    return f"{len(indices)} rows ({indices.min()} to {indices.max()})"
