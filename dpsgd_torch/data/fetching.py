"""Fetching rows of a map-style ``Dataset``, one at a time, in this process or in a worker."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from dpsgd_torch.data.base import Batch, Schema, Wanted
from dpsgd_torch.data.examples import (
    RowError,
    Targets,
    refuse_unlike,
    split,
    tensors_of,
    with_inputs,
)
from dpsgd_torch.data.trees import mapped
from dpsgd_torch.errors import told

IDLE = -1  # in place of the row that a worker is at


@dataclass(frozen=True)
class Fault:
    """What a worker says of a row that cannot be had; an exception would lose the row."""

    message: str


class Fetch(Dataset[Any]):
    """Rows as a batch: item → transform → collate function, each row by itself.

    * Every example is an island: no function of the user's sees two rows at once.
    * What a row draws from torch's, numpy's or Python's global generators depends on the key and
      on its number alone, whoever fetches it and whatever is fetched with it. 64 bits seed
      torch's and Python's, 32 numpy's: no secret rests on them.
    """

    def __init__(
        self,
        dataset: Any,
        collate_fn: Callable[[list[Any]], Any] | None,
        transform: Callable[[Any], Any] | None,
        targets: Targets,
    ) -> None:
        self.dataset, self.collate_fn = dataset, collate_fn
        self.transform, self.targets = transform, targets
        self.schema: Schema | None = None  # of row 0, once that is known
        self.busy: torch.Tensor | None = None  # (workers, 2): its process, and the row it is at

    def __getitem__(self, wanted: Wanted) -> Batch | Fault:
        """The rows of ``wanted``, stacked; called in a worker."""
        worker = get_worker_info()
        at = None if worker is None or self.busy is None else self.busy[worker.id]
        if at is not None:
            at[0] = os.getpid()
        batches = []
        with own_draws():
            for row in wanted.rows.tolist():
                if at is not None:
                    at[1] = row
                try:
                    batches.append(self.example(row, wanted.key))
                except RowError as error:
                    return Fault(str(error))
                except Exception as error:  # whatever the user's code raises
                    return Fault(f"row {row}: cannot be had ({told(error)}); mend what reads it")
        if at is not None:
            at[1] = IDLE
        inputs, targets = (
            mapped(lambda *rows: torch.cat(rows), *parts) for parts in zip(*batches, strict=True)
        )
        return inputs, targets

    def example(self, row: int, key: bytes) -> Batch:
        """One row as a batch of its own, of the first row's schema where that is known."""
        seed(key, row)
        item = self.dataset[row]
        where = f"row {row}"
        if self.collate_fn is not None:
            if self.transform is not None:
                inputs, _ = split(item, self.targets)
                item = with_inputs(item, self.transform(inputs), self.targets)
            parts = split(self.collate_fn([item]), self.targets)
            inputs, targets = (
                tensors_of(part, name, where)
                for part, name in zip(parts, ("inputs", "targets"), strict=True)
            )
        else:
            given, predicted = split(item, self.targets)
            if self.transform is not None:
                given = self.transform(given)
            inputs, targets = (
                mapped(lambda tensor: tensor[None], tensors_of(part, name, where))
                for part, name in ((given, "inputs"), (predicted, "targets"))
            )
        if self.schema is not None:
            refuse_unlike((inputs, targets), self.schema, row)
        return inputs, targets


def seed(key: bytes, row: int) -> None:
    """Set the global generators to what belongs to this row under this key."""
    drawn = hashlib.blake2b(row.to_bytes(8, "little"), key=key, digest_size=20).digest()
    torch.default_generator.manual_seed(int.from_bytes(drawn[:8], "little") >> 1)
    random.seed(int.from_bytes(drawn[8:16], "little"))
    np.random.seed(int.from_bytes(drawn[16:], "little"))


@contextlib.contextmanager
def own_draws() -> Iterator[None]:
    """Give the global generators back as they were; one thread, so that sums are a worker's."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()
    threads = torch.get_num_threads()
    try:
        if threads > 1:
            torch.set_num_threads(1)
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])
