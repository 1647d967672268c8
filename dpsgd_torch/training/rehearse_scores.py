"""Losses, metrics and scores tried on the rows that they will meet, before the first charge."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from dpsgd_torch.data.base import Batch, Data
from dpsgd_torch.data.trees import Tree, first, leaves, length, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Oracle
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import extreme_rows
from dpsgd_torch.gradients.target_ranges import TargetRange
from dpsgd_torch.training.evaluation import evaluate
from dpsgd_torch.training.first_pass import FirstPass, first_pass
from dpsgd_torch.training.lengths import try_score_lengths
from dpsgd_torch.training.metrics import Metrics
from dpsgd_torch.training.modes import evaluating
from dpsgd_torch.training.unfit_rows import check_rows
from dpsgd_torch.training.validation import HeldOut

_ALIKE = 1e-3  # of two passes over one row, alone and beside another
_FEW = 8  # rows in training, where a whole physical batch was rehearsed before
_VALUES = 10**7  # of made-up outputs that targets are tried against, in all


def try_training(model: nn.Module, loss: Loss, data: Batch, size: int) -> None:
    """The model on the rows of extreme inputs, the loss on every kind of target.

    Raises:
        ModelError: what failed, on how many rows; their values are not told.
    """
    oracle, state = Oracle(model, loss), State(model)
    try:
        with torch.no_grad(), same_draws(first(data).device):
            _try(oracle, {"loss": loss}, data, size, "training", outputs_of=_FEW)
        state.refuse_changes()
    finally:
        state.restore()


def try_scores(
    model: nn.Module,
    scores: Metrics,
    test: Data | None,
    held_out: HeldOut | None,
    size: int,
    within: TargetRange | None = None,
) -> None:
    """The metrics on test data and the score on validation data, as they are taken later.

    Metrics that are no mean over examples are computed, which takes a pass over the test data.

    Args:
        within: what targets of the loss must lie within, where that is known.
    """
    if test is not None:
        met = first_pass(test, size, "test_tensors", within)
        with _unchanged(model):
            check_rows(met, model, scores.loss, within, size, public=True)
            scores.decide(model, test)
            try_score_lengths(model, scores.per_example or {"loss": scores.loss}, test, "test")
            _try_held_out(model, scores.per_example, scores.loss, met, size, "test")
            if scores.objects or scores.whole:
                evaluate(model, scores, test)
    if held_out is not None:
        within = held_out.within(within)
        met = first_pass(held_out.data, size, "validation", within)
        with _unchanged(model):
            check_rows(met, model, held_out.score, within, size, public=held_out.asked.public)
            score = {"score": held_out.score}
            try_score_lengths(model, score, held_out.data, "validation")
            _try_held_out(model, score, held_out.score, met, size, "validation")


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and held to what it is."""
    state = State(model)
    try:
        with evaluating(model), torch.no_grad():
            yield
        state.refuse_changes()
    finally:
        state.restore()


def _try_held_out(
    model: nn.Module, scores: Mapping[str, Loss], loss: Loss, met: FirstPass, size: int, which: str
) -> None:
    oracle = Oracle(model, loss)
    _try(oracle, scores, met.rows, size, which)
    _refuse_company(oracle, scores, met.rows, which)


def _try(
    oracle: Oracle,
    scores: Mapping[str, Loss],
    data: Batch,
    size: int,
    which: str,
    outputs_of: int | None = None,
) -> None:
    """Each score on ``size`` rows at once, of outputs of so many rows, over and over."""
    size = min(size, length(data))
    few = min(size, outputs_of or size)
    outputs = oracle.outputs(taken(data[0], slice(few)), f"{which} rows")
    for rows in (torch.arange(1, device=first(data).device), extreme_rows(data[0])):
        for piece in rows.split(size):
            oracle.outputs(taken(data[0], piece), f"{which} rows of extreme inputs")
    given = [part for part in tree_leaves(outputs) if isinstance(part, torch.Tensor)]
    wide = sum(math.prod(part.shape[1:]) for part in given)
    for rows in kinds_of(data[1], wide).split(size):
        like = tree_map_only(torch.Tensor, partial(_repeated, size=few, count=len(rows)), outputs)
        for name, score in scores.items():
            targets = taken(data[1], rows)
            try:
                _try_score(name, score, like, targets, which, oracle.model)
            except ModelError:
                if isinstance(outputs, torch.Tensor):
                    raise
                own = oracle.outputs(taken(data[0], rows), f"{which} rows")  # repeated, unlike
                _try_score(name, score, own, targets, which, oracle.model)


def _refuse_company(oracle: Oracle, scores: Mapping[str, Loss], data: Batch, which: str) -> None:
    """Of several outputs, which no score is tried on in part: a row has what it has alone."""
    found = []
    for count in (1, min(2, length(data))):
        inputs, targets = taken(data, slice(count))
        with same_draws(first(data).device), FrozenDraws():
            outputs = oracle.outputs(inputs, f"{which} rows")
            if isinstance(outputs, torch.Tensor):
                return
            found.append([score(outputs, targets)[:1].double() for score in scores.values()])
    for name, alone, beside in zip(scores, *found, strict=True):
        if not torch.allclose(alone, beside, rtol=_ALIKE, atol=_ALIKE, equal_nan=True):
            raise ModelError(
                f"{_called(name)}: a {which} row's value changes with the rows beside it; give "
                "outputs and targets the same shape, and keep what works across the batch out of it"
            )


def _called(score: str) -> str:
    return score if score in ("loss", "score") else f"metric {score}"


def _repeated(tensor: torch.Tensor, size: int, count: int) -> torch.Tensor:
    """As many rows, of what has one for each example."""
    if tensor.shape[:1] != (size,):
        return tensor
    return tensor[torch.arange(count, device=tensor.device) % size]


def _try_score(
    name: str,
    score: Loss,
    outputs: Any,
    targets: Tree,
    which: str,
    model: nn.Module,
) -> None:
    what = _called(name)
    count = length(targets)
    with blamed(f"{what} over {count} {which} rows", model):
        values = score(outputs, targets)
    fits = isinstance(values, torch.Tensor) and values.ndim > 0 and len(values) == count
    if not fits:
        given = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ModelError(
            f"{what} = {given} for {count} {which} rows: must be one value a row; return "
            "it unreduced, the mean is taken here"
        )


def kinds_of(targets: Tree, values: int) -> torch.Tensor:
    """Rows with every kind of target: each whole number once, else all rows or the extremes."""
    found = [_kinds_in(tensor, values) for tensor in leaves(targets)]
    return found[0] if len(found) == 1 else torch.cat(found).unique()


def _kinds_in(targets: torch.Tensor, values: int) -> torch.Tensor:
    count = len(targets)
    whole = not (targets.is_floating_point() or targets.is_complex())
    if whole and targets[0].numel() == 1:
        _, kinds = targets.reshape(-1).unique(return_inverse=True)
        first = torch.full((int(kinds.max()) + 1,), count, device=targets.device)
        places = torch.arange(count, device=targets.device)
        return first.scatter_reduce_(0, kinds, places, "amin")
    if count * max(1, values) <= _VALUES:
        return torch.arange(count, device=targets.device)
    every = math.ceil(count * values / _VALUES)
    spread = torch.arange(0, count, every, device=targets.device)
    return torch.cat([extreme_rows(targets), spread]).unique()
