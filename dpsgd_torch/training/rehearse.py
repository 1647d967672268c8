"""Whatever of the user's can raise, tried on what it will meet, before the first charge."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
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
from dpsgd_torch.gradients.methods import Method, choose
from dpsgd_torch.gradients.model_checks import (
    refuse_by_name,
    refuse_mixing_layers,
    refuse_without_float64,
)
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Oracle
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import extreme_rows
from dpsgd_torch.storage.sealed import tensors_to_bytes
from dpsgd_torch.training.first_pass import rows_to_rehearse
from dpsgd_torch.training.lengths import of_other_lengths, try_lengths, try_score_lengths
from dpsgd_torch.training.modes import evaluating
from dpsgd_torch.training.movement import refuse_unmoved
from dpsgd_torch.training.physical_size import fitting, free_memory
from dpsgd_torch.training.private_optimizer import refuse_long_sums
from dpsgd_torch.training.released_state import checksums, released_tensors
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.validation import HeldOut

_ALIKE = 1e-3  # of two passes over one row, alone and beside another
_FEW = 8  # rows in training, where a whole physical batch was rehearsed before
_VALUES = 10**7  # of made-up outputs that targets are tried against, in all


def try_all(run: RunState, held_out: HeldOut | None, gradients: str) -> Method:
    """Try what training, scores and optimizer will do, on a physical batch at once at most.

    Sets the physical batch size where it is "auto".

    Args:
        gradients: the kind of per-example gradients that is asked for.

    Returns:
        The method to take.

    Raises:
        ModelError, DataError: what failed, and on what.
    """
    if not run.picks_size:
        refuse_long_sums(run.sampling.batch_size, run.physical_batch_size)
    refuse_without_float64(run.device)
    refuse_mixing_layers(run.model)
    refuse_by_name(run.model)
    try_saving(run.model)
    if run.folder or run.callbacks.early_stopping.keep_best:
        try_loading(run.model)
    method, rows, size = _chosen(run, gradients)
    try_training(run.model, run.loss, rows, size)
    try_scores(run.model, run.scores, run.test, held_out, size)
    try_optimizer(run.model, run.optimizer)
    return method


def method_of(run: RunState, gradients: str) -> Method:
    """The method of this kind, rehearsed.

    Raises:
        ModelError: it is not right for this model and loss.
    """
    return _chosen(run, gradients)[0]


def _chosen(run: RunState, gradients: str) -> tuple[Method, Batch, int]:
    """The method, and the rows that it was rehearsed on, so many at once."""
    likely = run.sampling.likely_rows()

    def sized(example: Callable[[], int]) -> int:
        if run.picks_size:
            run.physical_batch_size = fitting(
                example(),
                rows=likely,
                batch_size=run.sampling.batch_size,
                free=free_memory(run.device),
            )
            refuse_long_sums(run.sampling.batch_size, run.physical_batch_size)
        return min(run.physical_batch_size, likely)

    size = min(run.physical_batch_size, likely)
    rows = rows_to_rehearse(run.data, size, "train_tensors")
    try_lengths(run.model, run.loss, run.data)
    others = of_other_lengths(run.data, size)
    method = choose(gradients, run.model, run.loss, rows, sized, others)
    return method, rows, min(run.physical_batch_size, likely)


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
    scores: Mapping[str, Loss],
    test: Data | None,
    held_out: HeldOut | None,
    size: int,
) -> None:
    """The metrics on test data and the score on validation data, as they are taken later."""
    if test is None and held_out is None:
        return
    state = State(model)
    try:
        with evaluating(model), torch.no_grad():
            if test is not None:
                rows = rows_to_rehearse(test, size, "test_tensors")
                oracle = Oracle(model, scores["loss"])
                try_score_lengths(model, scores, test, "test")
                _try(oracle, scores, rows, size, "test")
                _refuse_company(oracle, scores, rows, "test")
            if held_out is not None:
                score = {"score": held_out.score}
                rows = rows_to_rehearse(held_out.data, size, "validation")
                oracle = Oracle(model, held_out.score)
                try_score_lengths(model, score, held_out.data, "validation")
                _try(oracle, score, rows, size, "validation")
                _refuse_company(oracle, score, rows, "validation")
        state.refuse_changes()
    finally:
        state.restore()


def try_saving(model: nn.Module) -> None:
    """What the model holds as a file of tensors, as it is kept and compared later.

    Raises:
        ModelError: something in it fits in none.
    """
    hint = "; keep what is no plain tensor out of its buffers"
    with blamed("the model's state, as it is saved", hint=hint):
        tensors_to_bytes(released_tensors(model))
        checksums(model)


def try_loading(model: nn.Module) -> None:
    """What was saved, loaded again, as a resumed run and the best epoch's weights are.

    Raises:
        ModelError: it does not fit the model, or changes it.
    """
    state, before = State(model), checksums(model)
    hint = "; give each parameter and buffer memory of its own, and load what is saved as it is"
    try:
        with blamed("the model's state, as it is loaded again", hint=hint):
            model.load_state_dict(released_tensors(model))
        after = checksums(model)
        if changed := [name for name in before if before[name] != after.get(name)]:
            raise ModelError(
                f"{changed[0]}: is another when it is loaded from what was saved, so a resumed run "
                "would train another model; save and load it as it is"
            )
    finally:
        state.restore()


def try_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step of a copy on copies of the parameters; one that cannot be copied goes untried.

    Raises:
        ModelError: the step fails, or does not move a parameter, from 0 either.
    """
    copies = _stepped(optimizer, zero=False)
    if copies and any(torch.equal(p, copied) for p, copied in copies.items()):
        refuse_unmoved(_stepped(optimizer, zero=True), optimizer, model)


def _stepped(optimizer: torch.optim.Optimizer, *, zero: bool) -> dict[nn.Parameter, nn.Parameter]:
    """What a step by small gradients makes of copies; from zeros, by gradients of 1."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    copies = {id(p): nn.Parameter(p.detach().clone(), p.requires_grad) for p in held}
    twin = object.__new__(type(optimizer))
    try:
        # not copy.deepcopy(optimizer), which leaves out what a subclass keeps beside its state
        twin.__dict__.update(copy.deepcopy(optimizer.__dict__, dict(copies)))
    except Exception:
        return {}
    twin.__dict__["_optimizer_step_pre_hooks"] = OrderedDict()
    twin.__dict__["_optimizer_step_post_hooks"] = OrderedDict()
    for p in copies.values():
        if zero:
            p.data.zero_()
        size = 1.0 if zero else 1e-3
        p.grad = torch.full_like(p, size, memory_format=torch.contiguous_format)
    with blamed(f"optimizer {type(optimizer).__name__}: a step on copies of the parameters"):
        type(optimizer).step(twin)  # the class's own: a scheduler wraps the instance's
    return {p: copies[id(p)] for p in held}


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
    for rows in _kinds_of(data[1], wide).split(size):
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


def _kinds_of(targets: Tree, values: int) -> torch.Tensor:
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
