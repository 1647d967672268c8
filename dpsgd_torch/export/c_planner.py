"""Where the tensors of a graph lie in the C target's one scratch arena.

A tensor lives from the step that makes it to the last that reads it. Two that live together lie
apart, except where a step overwrites an input that dies with it: then the output may begin
``lead`` bytes before that input, or more, and grow over it, or just ``lead_alone``. Orders of
placing are tried, each tensor in the lowest place that is left, the best order is improved by
moving one tensor at a time, and the search ends where no arrangement could be smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpsgd_torch.export.c_overlap import aligned, lead, lead_alone
from dpsgd_torch.export.program import Operation, OperationKind, Tensor

_TRIES = 400
"""Moves of one tensor; a graph of 60 takes a second."""


@dataclass(frozen=True)
class Arena:
    """Offset of each tensor (None: a caller's buffer) and of each step's scratch, in bytes."""

    tensors: tuple[int | None, ...]
    scratch: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class _Item:
    """A tensor (``made`` is its step) or a step's scratch, live in steps ``made`` … ``last``."""

    size: int
    made: int
    last: int


@dataclass(frozen=True)
class _Conflict:
    """The item lies at most other − below, or at least other + above, or just other + at."""

    other: int
    below: int
    above: int
    at: int | None


@dataclass(frozen=True)
class _Problem:
    """``over``, ``alone``: (output, input) → ``lead`` and ``lead_alone``."""

    items: list[_Item]
    over: dict[tuple[int, int], int]
    alone: dict[tuple[int, int], int]

    def conflicts(self, item: int) -> list[_Conflict]:
        """With whatever lives when it does."""
        mine, found = self.items[item], []
        for other, their in enumerate(self.items):
            if other == item or mine.last < their.made or their.last < mine.made:
                continue
            below = self.over.get((item, other), mine.size)
            above = self.over.get((other, item), their.size)
            at = None
            if (item, other) in self.alone:
                at = -self.alone[item, other]
            elif (other, item) in self.alone:
                at = self.alone[other, item]
            found.append(_Conflict(other, below, above, at))
        return found

    def least(self) -> int:
        """No arrangement is smaller: what lives before or after a step, and cannot be shared."""
        steps = range(max((item.last for item in self.items), default=-1) + 1)
        overwritten = {source for _, source in (*self.over, *self.alone)}
        found = 0
        for step in steps:
            live = [i for i, item in enumerate(self.items) if item.made <= step <= item.last]
            made = [i for i in live if self.items[i].made == step]
            dying = [i for i in live if i in overwritten and self.items[i].last == step]
            kept = sum(self.items[i].size for i in live if i not in made and i not in dying)
            ends = sum(self.items[i].size for i in made), sum(self.items[i].size for i in dying)
            both = max(ends) if dying else sum(ends)
            found = max(found, kept + both)
        return found


def place(
    tensors: Sequence[Tensor],
    operations: Sequence[Operation],
    scratch: Sequence[int],
    sources: Sequence[tuple[int, ...]] | None = None,
    read: Sequence[tuple[int, ...]] | None = None,
) -> Arena:
    """The smallest arrangement that was found, the same for the same graph.

    ``scratch``: bytes each operation needs beside its tensors. ``sources``: which tensors each
    reads; None: a chain. ``read``: the same where a tensor has the bytes of another; it gets no
    place. The first and the last tensor are the caller's.
    """
    sources = sources or [(index,) for index in range(len(operations))]
    read = read or sources
    last_read = {source: step for step, reads in enumerate(read) for source in reads}
    inner = range(1, len(operations))
    aside = {source for reads in sources for source in reads} - last_read.keys()
    sizes = [0 if t in aside else aligned(tensor.size) for t, tensor in enumerate(tensors)]
    items = [_Item(sizes[t], t - 1, last_read.get(t, t - 1)) for t in inner]
    over: dict[tuple[int, int], int] = {}
    alone: dict[tuple[int, int], int] = {}
    for target in inner:
        reads = read[target - 1]
        for which, source in enumerate(reads):
            if source == 0 or last_read[source] > target - 1 or reads.count(source) > 1:
                continue
            given = [tensors[each] for each in sources[target - 1]]
            more, just = _leads(operations[target - 1], which, given, tensors[target])
            if more is not None:
                over[target - 1, source - 1] = aligned(more)
            if just is not None:
                alone[target - 1, source - 1] = just
    busy = [step for step, size in enumerate(scratch) if size]
    items += [_Item(aligned(scratch[step]), step, step) for step in busy]
    offsets = _search(_Problem(items, over, alone))
    places = dict(zip(busy, offsets[len(inner) :], strict=True))
    return Arena(
        (
            None,
            *(None if t in aside else at for t, at in enumerate(offsets[: len(inner)], start=1)),
            *([None] if operations else []),
        ),
        tuple(places.get(step, 0) for step in range(len(operations))),
        max((at + item.size for at, item in zip(offsets, items, strict=True)), default=0),
    )


def _search(problem: _Problem) -> list[int]:
    items = problem.items
    count, least = len(items), problem.least()
    conflicts = [problem.conflicts(item) for item in range(count)]

    def tried(order: list[int]) -> tuple[int, list[int]]:
        offsets = _lowest(order, conflicts)
        return max((offsets[i] + items[i].size for i in order), default=0), offsets

    orders = [
        sorted(range(count), key=lambda i: (-items[i].made, i)),
        sorted(range(count), key=lambda i: (items[i].made, i)),
        sorted(range(count), key=lambda i: (-items[i].size, -items[i].made)),
        sorted(range(count), key=lambda i: (items[i].made - items[i].last, -items[i].size)),
    ]
    (size, offsets), order = min(
        ((tried(order), order) for order in orders), key=lambda found: found[0][0]
    )
    rng = np.random.default_rng(0)
    for _ in range(_TRIES if count > 1 else 0):
        if size <= least:
            break
        moved = list(order)
        moved.insert(int(rng.integers(count)), moved.pop(int(rng.integers(count))))
        other, places = tried(moved)
        if other <= size:
            size, offsets, order = other, places, moved
    return offsets


def _lowest(order: list[int], conflicts: list[list[_Conflict]]) -> list[int]:
    """Each item in the lowest place that those before it leave."""
    offsets = [-1] * len(order)
    for item in order:
        taken = [
            (offsets[each.other], each) for each in conflicts[item] if offsets[each.other] >= 0
        ]
        at = 0
        while beyond := [
            other + each.at if each.at is not None and at < other + each.at else other + each.above
            for other, each in taken
            if other - each.below < at < other + each.above
            and (each.at is None or at != other + each.at)
        ]:
            at = min(beyond)
        offsets[item] = at
    return offsets


def _leads(
    operation: Operation, which: int, sources: Sequence[Tensor], target: Tensor
) -> tuple[int | None, int | None]:
    if isinstance(operation, OperationKind):
        told = which, sources, target
        return operation.lead(*told), operation.lead_alone(*told)
    return lead(operation, sources[0], target), lead_alone(operation, sources[0], target)
