"""Map-style datasets: rows of a torch ``Dataset``, taken as they are drawn, by worker processes."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Subset

from accountant.errors import check
from dpsgd_torch.data.base import Batch, Data, Piece, Schema, Wanted, rows_at_once
from dpsgd_torch.data.examples import RowError, Targets
from dpsgd_torch.data.fetching import Fault, Fetch
from dpsgd_torch.data.streams import refuse_stream
from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.data.trees import named
from dpsgd_torch.data.units import Flags, Indices
from dpsgd_torch.data.workers import TIMEOUT, fetched, fetched_ahead


class FromDataset(Data):
    """A map-style ``Dataset`` (``__len__``, ``__getitem__``) as training, test or validation data.

    * Memory holds the rows of a few physical batches, whatever the length.
    * Every row is made by itself: ``collate_fn`` is called with a list of one item, so no example
      can depend on another. All rows must come out in one shape: pad to a fixed length.
    * What a row draws from torch's, numpy's or Python's global generators (a random crop, in
      ``transform`` or within the dataset) is seeded by the run's own stream, the step and the row:
      another crop at each step, the same on resume, with any number of workers and any physical
      batch size. Where there is no step (test and validation rows, the pass over all rows before
      the first charge) a row draws the same each time.

    Args:
        dataset: items are pairs (x, y), or dicts or tuples of which ``targets`` names a part.
        collate_fn: a list of one item → a batch of one, tensors with a first dimension of 1.
        workers: processes that load ahead while training goes on; 0 loads in this one.
        transform: the inputs of one item → inputs, such as a torchvision v2 transform.
        targets: key or position of what is predicted, or several of them; None takes the second of
            a pair, or the key label, labels, target, targets or y.
        fingerprint: text that changes whenever the rows do, in place of a digest of all of them.
        timeout: seconds after which workers are given up that hand over nothing.

    Raises:
        DataError: a stream, without length or random access.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> rows = TensorDataset(torch.eye(3), torch.tensor([7, 8, 9]))
    >>> data = FromDataset(rows, transform=lambda x: 2 * x)
    >>> data.take(np.array([2, 0]))
    (tensor([[0., 0., 2.], [2., 0., 0.]]), tensor([9, 7]))
    """

    def __init__(
        self,
        dataset: Any,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        *,
        workers: int = 0,
        transform: Callable[[Any], Any] | None = None,
        targets: Targets = None,
        fingerprint: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        refuse_stream(dataset, "dataset")
        whole = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
        check(whole, "workers", workers, "must be a whole number ≥ 0", "0 loads in this process")
        waits = isinstance(timeout, int | float) and 0 < timeout < math.inf
        check(waits, "timeout", timeout, "must be a number of seconds > 0")
        self.dataset, self.workers, self.timeout = dataset, workers, timeout
        self._fetch = Fetch(dataset, collate_fn, transform, targets)
        self._told, self._digest = fingerprint, _Digest()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def schema(self) -> Schema:
        if self._fetch.schema is None:
            self._fetch.schema = Schema.of(_opened(self._fetch[Wanted(np.zeros(1, np.int64))]))
        return self._fetch.schema

    def take(self, indices: Indices) -> Batch:
        assert self.schema  # which rows are held to
        return _opened(self._fetch[Wanted(indices)])

    def ahead(self, wanted: Iterable[Wanted]) -> Generator[Batch]:
        assert self.schema
        asked: list[Wanted] = []

        def noted() -> Iterator[Wanted]:
            for each in wanted:
                asked.append(each)
                yield each

        made = (
            fetched_ahead(self._fetch, noted(), self.workers, self.timeout)
            if self.workers
            else fetched(self._fetch, noted())
        )
        try:
            for found in made:
                batch = _opened(found)
                if self._told is None:
                    self._digest.see(asked[0], batch, len(self))
                del asked[0], found
                yield batch
        finally:
            made.close()

    def fingerprint(self) -> Iterator[Piece]:
        """What ``fingerprint=`` says, or a sha256 of all rows, from the pass made over them anyway.

        * Of augmented rows it is of those that are drawn where there is no step: a transform that
          differs from the one before in other draws alone is told by its ``repr``, if at all.
        * With ``fingerprint=`` nothing is noticed but that text, the length, and one row's shape.
        """
        length, shape = len(self), self.schema
        how = [self._fetch.transform, self._fetch.collate_fn]
        yield f"{length} rows of {shape}, {[_address_free(part) for part in how]} ".encode()
        if self._told is not None:
            yield self._told.encode()
            return
        if not self._digest.of(length):
            pieces = np.split(np.arange(length), np.arange(0, length, rows_at_once(shape))[1:])
            for _ in self.ahead(map(Wanted, pieces)):
                pass
        yield self._digest.of(length)

    @property
    def told_whole(self) -> bool:
        return self._told is None

    def rows(self, where: Indices | Flags) -> FromDataset:
        fetch = self._fetch
        chosen = np.arange(len(self))[where]
        told = self._told and f"{self._told} {hashlib.sha256(chosen.tobytes()).hexdigest()}"
        return FromDataset(
            Subset(self.dataset, chosen.tolist()),
            fetch.collate_fn,
            workers=self.workers,
            transform=fetch.transform,
            targets=fetch.targets,
            fingerprint=told,
            timeout=self.timeout,
        )


class _Digest:
    """sha256 of all rows, taken along where somebody passes over them in order."""

    def __init__(self) -> None:
        self._seen, self._parts = 0, dict[str, Any]()
        self._whole, self._length = b"", -1

    def see(self, wanted: Wanted, batch: Batch, length: int) -> None:
        start, count = int(wanted.rows[0]), len(wanted.rows)
        if wanted.key or not np.array_equal(wanted.rows, np.arange(start, start + count)):
            return
        if start == 0:
            self._seen, self._parts = 0, {}
        if start != self._seen:
            return
        for part, tree in zip(("inputs", "targets"), batch, strict=True):
            for name, tensor in named(tree, part):
                self._parts.setdefault(name, hashlib.sha256()).update(raw_bytes(tensor))
        self._seen += count
        if self._seen == length:
            told = [f"{name} {part.hexdigest()} " for name, part in sorted(self._parts.items())]
            self._whole, self._length = "".join(told).encode(), length

    def of(self, length: int) -> bytes:
        """The digest of so many rows, empty where they were not passed over."""
        return self._whole if self._length == length else b""


def _opened(found: Batch | Fault) -> Batch:
    if isinstance(found, Fault):
        raise RowError(found.message)
    return found


def _address_free(part: object) -> str:
    """A function's or transform's repr, without where it lies in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))
