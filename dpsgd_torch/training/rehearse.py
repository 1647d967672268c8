"""Whatever of the user's can raise, tried on what it will meet, before the first charge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.tensors import give_back
from dpsgd_torch.data.trees import taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.methods import Method, choose, per_example_gradients
from dpsgd_torch.gradients.model_checks import (
    refuse_by_name,
    refuse_mixing_layers,
    refuse_without_float64,
)
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.target_ranges import TargetRange
from dpsgd_torch.storage.sealed import tensors_to_bytes
from dpsgd_torch.training.agreement import agree_on_weights
from dpsgd_torch.training.first_pass import FirstPass, first_pass
from dpsgd_torch.training.lengths import of_other_lengths, try_lengths
from dpsgd_torch.training.physical_size import fitting, free_memory
from dpsgd_torch.training.private_optimizer import refuse_long_sums
from dpsgd_torch.training.rehearse_compiled import compiled
from dpsgd_torch.training.rehearse_filled import refuse_moving
from dpsgd_torch.training.rehearse_optimizer import try_optimizer
from dpsgd_torch.training.rehearse_scores import try_scores, try_training
from dpsgd_torch.training.released_state import checksums, released_tensors
from dpsgd_torch.training.shards import Shards
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.unfit_rows import check_rows
from dpsgd_torch.training.validation import HeldOut


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
    try_model(run)
    give_back()
    within = TargetRange.of(run.given_loss)
    met = met_rows(run, within)
    check_rows(met, run.model, run.loss, within, at_once(run), learns=True)
    run.views.try_on(met.rows)
    method = chosen(run, gradients, met.rows)
    if run.compiles:
        method = compiled(run, method, met.rows)
    size = at_once(run)
    try_training(run.model, run.loss, met.rows, size)
    try_scores(run.model, run.scores, run.test, held_out, size, within)
    give_back()
    if run.shards:
        agree_on_weights(run)
        try_in_parts(run, run.shards, method, met.rows)
        run.shards.take()
    try_optimizer(run.shards or run.model, run.optimizer, kept=run.folder is not None)
    give_back()
    return method


def try_in_parts(run: RunState, shards: Shards, method: Method, rows: Batch) -> None:
    """A pass over two real rows with the model in parts: its norms are those of the whole model.

    Raises:
        ModelError: what reads a parameter does so behind torch's back.
    """
    batch: Batch = taken(rows, slice(2))
    found = list[torch.Tensor]()
    kind, layouts = method.kind, method.layouts
    with per_example_gradients(run.model, kind, layouts, run.forward) as wrapped:
        for in_parts in (False, True):
            if in_parts:
                shards.take_apart()
            hint = "; read parameters by operations of torch alone, or leave shard out"
            with shards.phase(), same_draws(run.device), FrozenDraws():
                with blamed("the model in parts, over real rows", run.model, hint=hint):
                    wrapped.backward(run.loss, *batch)
                found.append(wrapped.vectors(shards.params).norms)
    shards.put_together()
    if not torch.equal(*found):
        raise ModelError(
            "model: its per-example gradients are others where it is in parts; something reads its "
            "parameters behind torch's back: leave shard out"
        )


def try_model(run: RunState) -> None:
    """What can be refused of the model before any pass.

    Raises:
        ModelError, InvalidValue: what cannot be trained, saved or loaded.
    """
    if not run.picks_size:
        refuse_long_sums(run.sampling.batch_size, vectors_at_once(run), run.world.size)
    refuse_without_float64(run.device)
    refuse_mixing_layers(run.model)
    refuse_by_name(run.model)
    try_saving(run.model)
    if run.folder or run.steering.early_stopping.keep_best:
        try_loading(run.model)


def method_of(run: RunState, gradients: str) -> Method:
    """The method of this kind, rehearsed.

    Raises:
        ModelError: it is not right for this model and loss.
    """
    return chosen(run, gradients, met_rows(run).rows)


def at_once(run: RunState) -> int:
    """So many rows at once a step has."""
    return min(run.physical_batch_size, run.sampling.likely_rows() * run.views.count)


def vectors_at_once(run: RunState) -> int:
    """So many clipped vectors at most a pass adds to the sum."""
    return max(1, run.physical_batch_size // run.views.count)


def met_rows(run: RunState, within: TargetRange | None = None) -> FirstPass:
    """What one pass over the training rows finds."""
    return first_pass(run.data, at_once(run), "train_tensors", within)


def chosen(run: RunState, gradients: str, rows: Batch) -> Method:
    """The method, rehearsed on these rows; sets the physical batch size where it is "auto"."""
    likely = run.sampling.likely_rows() * run.views.count

    def sized(example: Callable[[], int]) -> int:
        if run.picks_size:
            run.physical_batch_size = fitting(
                example(),
                rows=likely,
                batch_size=run.sampling.batch_size,
                free=free_memory(run.device),
                ranks=run.world.size,
            )
            sizes = run.world.exchange("physical batch size", run.physical_batch_size)
            run.physical_batch_size = min(sizes)
            refuse_long_sums(run.sampling.batch_size, vectors_at_once(run), run.world.size)
        return at_once(run)

    try_lengths(run.model, run.loss, run.data, run.forward)
    others = of_other_lengths(run.data, at_once(run))
    scale = run.precision.loss_scale
    method = choose(gradients, run.model, run.loss, rows, sized, run.forward, others, scale)
    if run.plan and run.plan.noise.secure:
        refuse_long_sums(run.sampling.batch_size, run.at_once, run.world.size)
        refuse_moving(run, method, rows)
    return method


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
