"""First pass over the data, before the first charge: what is there, which rows to rehearse on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dpsgd_torch.data.base import Batch, Data
from dpsgd_torch.data.survey import Survey
from dpsgd_torch.data.tensors import give_back
from dpsgd_torch.data.trees import Tree, first, leaves, length, mapped, taken
from dpsgd_torch.errors import DataError
from dpsgd_torch.gradients.rehearsal.synthetic import extreme_rows
from dpsgd_torch.gradients.target_ranges import TargetRange
from dpsgd_torch.training.lengths import Longest, summarized

_KINDS = 10_000  # of targets that are kept, where they are whole numbers


@dataclass(frozen=True)
class FirstPass:
    """What one pass over all rows found: what they hold, and those to rehearse on.

    * ``name``: what the user calls the set.
    * ``numbers``: of ``rows``, in the set.
    """

    name: str
    survey: Survey
    rows: Batch
    numbers: torch.Tensor


def first_pass(data: Data, size: int, name: str, within: TargetRange | None = None) -> FirstPass:
    """Survey all rows; keep the first ``size``, those of extreme values, one a kind of target.

    All rows are kept where memory holds them anyway; else every row is taken once, and what is
    kept of them twice: padded to the longest row, where their lengths differ.

    Args:
        within: what the targets must lie within, and which one counts as none.

    Raises:
        DataError: a row is not what the data declares, or not the same the second time.
    """
    ignored = None if within is None else within.ignored
    whole = data.in_memory()
    if whole is not None:
        return FirstPass(name, Survey.of(data, ignored), whole, torch.arange(len(data)))
    survey = Survey(ignored)
    rows = torch.zeros(0, dtype=torch.int64)
    kept: Batch | None = None
    schema, longest = data.schema, Longest(data)
    for batch in data.batches():
        rows = torch.cat([rows, torch.arange(survey.rows, survey.rows + length(batch))])
        longest.see(batch, survey.rows)
        batch = summarized(schema, batch)
        survey.add(batch)
        if kept is not None:
            batch = mapped(lambda *parts: torch.cat(parts), kept, batch)
        wanted = rows < size
        for found in (extreme_rows(batch[0]), extreme_rows(batch[1]), _kinds(batch[1])):
            wanted[found.cpu()] = True
        at = wanted.nonzero().squeeze(1)
        rows, at = rows[at], at.to(first(batch).device)
        kept = taken(batch, at)
        give_back()
    assert kept is not None
    if schema.varies:
        rows = torch.cat([rows, torch.tensor(longest.rows(), dtype=torch.int64)]).unique()
        kept = data.take(rows.numpy())
    _refuse_changing(data, rows, kept, name)
    return FirstPass(name, survey, kept, rows)


def _kinds(targets: Tree) -> torch.Tensor:
    """The first rows with each whole number, up to some."""
    return torch.cat([_kinds_of(tensor) for tensor in leaves(targets)])


def _kinds_of(targets: torch.Tensor) -> torch.Tensor:
    whole = not (targets.is_floating_point() or targets.is_complex())
    if not whole or targets[0].numel() != 1:
        return torch.zeros(0, dtype=torch.int64, device=targets.device)
    order = targets.reshape(-1).sort(stable=True)
    first = torch.ones_like(order.values, dtype=torch.bool)
    first[1:] = order.values[1:] != order.values[:-1]
    return order.indices[first][:_KINDS]


def _refuse_changing(data: Data, rows: torch.Tensor, kept: Batch, name: str) -> None:
    again = data.take(rows.numpy())
    for before, after in zip(leaves(kept), leaves(again), strict=True):
        differs = (_flat(before) != _flat(after)).any(1)
        if differs.any():
            row = int(rows[int(differs.nonzero()[0])])
            raise DataError(
                f"{name}: row {row} differs when it is taken again: it must be the same each "
                "time, also in a run that resumes; draw what is random inside the model, or (of a "
                "Dataset) from torch's, numpy's or Python's global generators, seeded for each row"
            )


def _flat(rows: torch.Tensor) -> torch.Tensor:
    """Byte by byte, so that what is not a number equals itself."""
    return rows.contiguous().reshape(len(rows), math.prod(rows.shape[1:])).view(torch.uint8)
