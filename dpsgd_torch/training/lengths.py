"""Rows of unequal length: the longest, batches of other lengths, and that padding tells nothing.

How far a row is padded is decided by the others of its batch: what changes with it makes no island.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsgd_torch.data.base import Batch, Data, Schema, Tensor
from dpsgd_torch.data.trees import Forward, call, leaves, length, mapped, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Oracle
from dpsgd_torch.gradients.rehearsal.padding import PADDED, refuse_padding

_LOOKED_AT = 256  # rows, for their lengths
_TRIED = 64  # rows of different lengths
_FEW = 8  # short rows in a batch of their own
_ALIKE = 1e-3  # of two values of one row

Place = tuple[int, int]  # which leaf, and which of its dimensions, the rows' left out


class Longest:
    """Where the longest rows are, found out by batches and then by halves of one."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._found: dict[Place, tuple[int, int, int]] = {}  # size, first row, past the last
        self._places = _places(data.schema)

    def see(self, batch: Batch, start: int) -> None:
        """A batch whose first row is ``start``."""
        for place in self._places:
            size = _size(batch, place)
            if size > self._found.get(place, (-1, 0, 0))[0]:
                self._found[place] = size, start, start + length(batch)

    def rows(self) -> list[int]:
        """One of the longest rows for each dimension that differs."""
        return [self._row(place, *found) for place, found in self._found.items()]

    def _row(self, place: Place, size: int, start: int, stop: int) -> int:
        while stop - start > 1:
            middle = (start + stop) // 2
            if _size(self._data.take(np.arange(start, middle)), place) >= size:
                stop = middle
            else:
                start = middle
        return start


def summarized(schema: Schema, batch: Batch) -> Batch:
    """Of what differs in length, the smallest and largest value of each row; the rest as it is."""

    def short(spec: Tensor, tensor: torch.Tensor) -> torch.Tensor:
        if None not in spec.shape:
            return tensor
        flat = tensor.flatten(1)
        if tensor.is_complex() or flat.shape[1] == 0:
            return torch.zeros(len(tensor), 2, device=tensor.device)
        flat = flat.to(torch.uint8) if flat.dtype is torch.bool else flat
        return torch.stack([flat.amin(1), flat.amax(1)], 1)

    return (
        mapped(short, schema.inputs, batch[0]),
        mapped(short, schema.targets, batch[1]),
    )


def of_other_lengths(data: Data, size: int) -> list[Batch]:
    """Batches as steps will see them: the first ``size`` rows, and some that are short."""
    if not data.schema.varies:
        return []
    short = _by_length(data)[:_FEW]
    return [data.take(np.arange(min(size, len(data)))), data.take(np.sort(short))]


def try_lengths(model: nn.Module, loss: Loss, data: Data, forward: Forward = call) -> None:
    """An example's gradient is the same, however far it is padded.

    Raises:
        ModelError: it is not, so that it would tell how long the others of its batch are.
    """
    if data.schema.varies:
        device = leaves(data.take(np.zeros(1, np.int64)))[0].device
        refuse_padding(model, loss, _alone_and_beside(data), device, forward)


def try_score_lengths(model: nn.Module, scores: Mapping[str, Loss], data: Data, which: str) -> None:
    """The same for what is measured, whose values of private rows are clipped one by one.

    Raises:
        ModelError: a row's value changes with how far it is padded.
    """
    if not data.schema.varies:
        return
    oracle = Oracle(model, next(iter(scores.values())))
    for pair in _alone_and_beside(data):
        found: list[list[torch.Tensor]] = []
        for inputs, targets in pair:
            with same_draws(leaves(inputs)[0].device), FrozenDraws():
                outputs = oracle.outputs(inputs, f"{which} rows")
                found.append([score(outputs, targets).double() for score in scores.values()])
        for name, alone, beside in zip(scores, *found, strict=True):
            if not torch.allclose(alone, beside, rtol=_ALIKE, atol=_ALIKE, equal_nan=True):
                raise ModelError(f"{name}: a {which} row's value {PADDED}")


def _alone_and_beside(data: Data) -> list[tuple[Batch, Batch]]:
    """Rows of different lengths, each padded to its own and, by a long one beside it, further."""
    order = _by_length(data)
    spread = np.linspace(0, len(order) - 1, min(_TRIED, len(order))).astype(np.int64)
    pairs = []
    for row in order[spread]:
        alone, both = data.take(row[None]), data.take(np.array([row, order[-1]]))
        beside = taken(both, slice(1))
        if any(a.shape != b.shape for a, b in zip(leaves(alone), leaves(beside), strict=True)):
            pairs.append((alone, beside))
    return pairs


def _by_length(data: Data) -> Any:
    """Some rows, the shortest first."""
    rows = np.unique(np.linspace(0, len(data) - 1, _LOOKED_AT).astype(np.int64))
    places = _places(data.schema)
    sizes = [sum(_size(batch, p) for p in places) for batch in (data.take(r[None]) for r in rows)]
    return rows[np.argsort(sizes, kind="stable")]


def _places(schema: Schema) -> list[Place]:
    specs = [*leaves(schema.inputs), *leaves(schema.targets)]
    return [
        (at, dim)
        for at, spec in enumerate(specs)
        for dim, size in enumerate(spec.shape)
        if size is None
    ]


def _size(batch: Batch, place: Place) -> int:
    at, dim = place
    return int(leaves(batch)[at].shape[dim + 1])
