"""Rows that a loss cannot take or nothing can be learnt from: refused, or told, before a charge.

What was found in private rows is for the screen alone: ε does not cover it. It is in a refusal or
in a ``PrivateDataWarning``, and in no file.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from dpsgd_torch.data.survey import Column, Survey, finite_rows
from dpsgd_torch.data.trees import first, taken
from dpsgd_torch.errors import DataError, ModelError, PrivateDataWarning, outside
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal import memory
from dpsgd_torch.gradients.rehearsal.draws import same_draws
from dpsgd_torch.gradients.rehearsal.embedding_ids import embeds, ids_within
from dpsgd_torch.gradients.rehearsal.oracle import Oracle
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import extreme_rows
from dpsgd_torch.gradients.target_ranges import TargetRange
from dpsgd_torch.training.first_pass import FirstPass

LOCAL = "local, not covered by ε"
_FREE = "nothing was charged"
_FEW = 8  # rows with finite values whose loss is looked at
_EXACT = 1 << 24  # whole numbers up to here are float32 numbers
_SHOWN = 5  # columns that are named
_untold: ContextVar[bool] = ContextVar("untold", default=False)


@contextlib.contextmanager
def untold() -> Iterator[None]:
    """Tell nothing of rows inside, such as those of a later fold; refuse as ever.

    Not by a filter of warnings: a new one makes Python forget which others it has shown.
    """
    before = _untold.set(True)
    try:
        yield
    finally:
        _untold.reset(before)


def check_rows(
    met: FirstPass,
    model: nn.Module,
    loss: Loss,
    within: TargetRange | None,
    size: int,
    *,
    learns: bool = False,
    public: bool = False,
) -> None:
    """Refuse or tell what all rows of a set hold.

    Args:
        loss: one value per example, of training or of a score.
        within: what its targets must lie within, where that is known.
        size: of the rows that are passed at once.
        learns: whether the model learns from them: then constant columns are told as well.
        public: whether the rows are.

    Raises:
        DataError: targets outside their range, ids without an embedding, or a set of which no row
            has a finite loss.
    """
    state, before = State(model), memory.held(model)
    oracle = Oracle(model, loss)
    try:
        with torch.no_grad(), same_draws(first(met.rows).device):
            _refuse_targets(met, oracle, within)
            if embeds(model):
                _refuse_ids(met, oracle, size)
            strange = list(_lost(met, oracle, size))
    finally:
        memory.put(before)
        state.restore()
    _told(met, strange, learns=learns, public=public)


def tell_rows(met: FirstPass, *, finite: bool) -> None:
    """The same of training rows whose losses are had elsewhere.

    Args:
        finite: whether any of those of extreme rows was.

    Raises:
        DataError: all rows are spoilt, and no loss was finite.
    """
    if met.survey.finite == 0 and not finite:
        raise _nothing(met)
    _told(met, [], learns=True, public=False)


def _told(met: FirstPass, strange: list[str], *, learns: bool, public: bool) -> None:
    found = [*_spoilt(met.survey), *(_idle(met.survey) if learns else ()), *strange]
    if found and not _untold.get():
        text = f"{met.name}: {'; '.join(found)}"
        _tell(text if public else f"{LOCAL}: {text}")


def _refuse_targets(met: FirstPass, oracle: Oracle, within: TargetRange | None) -> None:
    targets = met.rows[1]
    if within is None or not isinstance(targets, torch.Tensor):
        return
    column = met.survey.columns["targets"]
    outputs = _outputs(oracle, met, slice(1)) if within.classes and column.whole else None
    broken = within.broken(column, outputs)
    if broken:
        row, rule = broken
        kind = "a class" if within.classes else "a target"
        raise DataError(
            f"{met.name}: row {row} has {kind} out of range for {within.loss}: {rule}; classes "
            f"count from 0; {_FREE}"
        )


def _refuse_ids(met: FirstPass, oracle: Oracle, size: int) -> None:
    for piece in extreme_rows(met.rows[0]).split(size):

        def called(row: int, piece: torch.Tensor = piece) -> str:
            return f"{met.name}: row {int(met.numbers[int(piece[row])])}"

        with ids_within(oracle.model, len(piece), called):
            _outputs(oracle, met, piece)


def _outputs(oracle: Oracle, met: FirstPass, rows: Any) -> Any:
    """None where the model fails: that is told better when it is rehearsed."""
    try:
        return oracle.outputs(taken(met.rows[0], rows), "rows")
    except ModelError:
        return None


def _lost(met: FirstPass, oracle: Oracle, size: int) -> Iterator[str]:
    """That no example's loss is finite: refused where all rows are spoilt, else in words."""
    if met.survey.finite == 0:
        pieces = torch.arange(len(met.numbers), device=first(met.rows).device).split(size)
        if not any(_finite(oracle, met, piece) for piece in pieces):
            raise _nothing(met)
        return
    at = finite_rows(met.rows).nonzero().squeeze(1)[:_FEW]
    if len(at) and not _finite(oracle, met, at):
        yield (
            f"the loss of the first {len(at)} rows whose values are finite is not; look at the "
            "model's weights, and for a log or a division by 0"
        )


def _nothing(met: FirstPass) -> DataError:
    return DataError(
        f"{met.name}: every row holds a value that is not finite (NaN or infinite), in "
        f"{_where(met.survey)}, and no row has a finite loss: nothing can be learnt, or told, from "
        f"them; fill or mend them; {_FREE}"
    )


def _finite(oracle: Oracle, met: FirstPass, rows: torch.Tensor) -> bool:
    """Whether some row's loss is finite, or cannot be had, which is told later."""
    try:
        outputs = oracle.outputs(taken(met.rows[0], rows), "rows")
        return bool(torch.isfinite(oracle.losses(outputs, taken(met.rows[1], rows), "rows")).any())
    except ModelError:
        return True


def _spoilt(survey: Survey) -> Iterator[str]:
    for name, column in survey.columns.items():
        if column.spoilt:
            yield (
                f"{column.spoilt} of {column.rows} rows of {name} hold values that are not finite "
                f"(the first: row {column.first_spoilt}); an example whose gradient is not finite "
                "adds nothing"
            )


def _idle(survey: Survey) -> Iterator[str]:
    """What little, or nothing, can be learnt of."""
    for name, column in survey.columns.items():
        if name.startswith("targets") and column.whole and _beyond(column):
            yield (
                f"{name} hold whole numbers beyond 2^24: a loss that takes them for float32 rounds "
                "them silently; scale them, or hand over float64"
            )
        if column.low is not None and column.rows > 1:
            yield from _constant(name, column, alone=_alone(survey, name))


def _beyond(column: Column) -> bool:
    """Whether the least or the largest is; of nothing both are infinite."""
    return any(row >= 0 and abs(value) > _EXACT for value, row in (column.least, column.most))


def _constant(name: str, column: Column, *, alone: bool) -> Iterator[str]:
    if alone and column.least[0] == column.most[0]:
        yield f"{name} hold one value in all {column.rows} rows"
        return
    if not column.table or name.startswith("targets"):
        return
    flat = column.constant.nonzero().squeeze(1)
    if len(flat):
        yield f"{name}: {_columns(flat)} of {len(column.constant)} hold one value in every row"


def _alone(survey: Survey, name: str) -> bool:
    """Whether a tensor is all that its part of an example is made of: no mask, no token type."""
    return name in ("inputs", "targets") and name in survey.columns


def _where(survey: Survey) -> str:
    spoilt = {name: column for name, column in survey.columns.items() if column.spoilt}
    parts = []
    for name, column in spoilt.items():
        empty = column.empty.nonzero().squeeze(1)
        some = column.table and 0 < len(empty) < len(column.empty)
        parts.append(f"{_columns(empty)} of {name}" if some else name)
    return " and ".join(parts)


def _columns(numbers: torch.Tensor) -> str:
    words = ", ".join(map(str, numbers[:_SHOWN].tolist()))
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"{'columns' if len(numbers) > 1 else 'column'} {words}{more}"


def _tell(text: str) -> None:
    """At the line of the user's that led here, so that it is said once for each."""
    warnings.warn(text, PrivateDataWarning, stacklevel=outside())
