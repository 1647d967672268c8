"""A loop of the user's own, rehearsed before the first charge: on the losses that it gives."""

from __future__ import annotations

import hashlib

import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.data.trees import Tree, call, length, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.graph.search import moved
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.carried import carried
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp, extreme_rows
from dpsgd_torch.training.rehearse import at_once, chosen, met_rows
from dpsgd_torch.training.rehearse_scores import kinds_of
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.unfit_rows import tell_rows

_FEW = 10**7  # values an output: of targets that are no classes, the extremes alone


def rehearse_loop(run: RunState, named: Loss | None) -> Batch:
    """All that a rehearsal of a model and a loss finds, of a loop that is asked for losses.

    Sets the method, and the physical batch size where it is "auto".

    Args:
        named: the loss that the loop says it takes, one value an example; None where it does not.

    Returns:
        One made-up example.

    Raises:
        ModelError, DataError: what failed, and on what; nothing was charged.
    """
    heard = hashlib.sha256()
    for p in run.model.parameters():
        p.grad = None
    run.modes.restore()
    met = met_rows(run)
    rows = met.rows
    run.method, finite = chosen(run, "graph", rows), False
    state = State(run.model)
    try:
        # moved, so that a zero among the weights hides nothing of what tells two loops apart
        with same_draws(run.device), moved(run.model.parameters(), 0):
            extremes = torch.cat([extreme_rows(rows[0]), kinds_of(rows[1], _FEW)]).unique()
            for piece in extremes.split(at_once(run)):
                losses = _losses(run, taken(rows, piece))
                heard.update(raw_bytes(losses))
                finite |= bool(torch.isfinite(losses).any())
                if named is not None:
                    _refuse_another(run, named, taken(rows, piece), losses)
        state.refuse_changes()
    finally:
        state.restore()
    tell_rows(met, finite=finite)
    run.heard = "" if named is not None else heard.hexdigest()
    return MadeUp(rows).batch(1)


def handed_on(model: object, inputs: Tree) -> Tree:
    """In place of a model's outputs, what a loop makes them of."""
    del model
    return inputs


def _losses(run: RunState, batch: Batch) -> torch.Tensor:
    what = f"loop over {length(batch[0])} training rows of extreme values"
    with blamed(what), carried(FrozenDraws()):
        return run.loss(*batch).detach()


def _refuse_another(run: RunState, named: Loss, batch: Batch, losses: torch.Tensor) -> None:
    outputs_of = run.precision.forward(call, run.device)
    with torch.no_grad(), blamed("loss = …: over some training rows"), FrozenDraws():
        expected = named(outputs_of(run.model, batch[0]), batch[1])
    if not torch.allclose(losses.double(), expected.double(), rtol=1e-5, atol=1e-6, equal_nan=True):
        raise ModelError(
            "loss: the loop's losses are not those of the loss that was named, whose noise it "
            "would share; name the one it takes, or leave loss out"
        )
