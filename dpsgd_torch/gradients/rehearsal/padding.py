"""Padding must tell nothing: how far an example is padded says how long others of its batch are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Forward, call
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.search import moved
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Oracle
from dpsgd_torch.gradients.rehearsal.passes import Passes
from dpsgd_torch.gradients.rehearsal.state import State

Pair = tuple[Batch, Batch]

_TRIED = 5
_PADDED = "one example, padded to its own length and further"
PADDED = (
    "changes with how far it is padded, which tells how long the others of its batch are; keep "
    "padding out by its mask, in the model and in the loss, or pad every row to one declared "
    "length: dpsgd_torch.Padded(…, length=…)"
)


def refuse_padding(
    model: nn.Module,
    loss: Loss,
    pairs: Iterable[Pair],
    device: torch.device,
    forward: Forward = call,
) -> None:
    """Refuse a model or loss by which an example's gradient differs within a pair.

    At the parameters as they are, and a little away: a zero may hide a path. Of many pairs those
    are taken whose losses differ most: what is a matter of no padding at all, or some, shows in a
    few. It is a net, not a proof: a maximum that no padding wins as yet can pass.

    Args:
        pairs: one example, padded to its own length and further, the shortest first.
    """
    passes, state = Passes(model, loss, device, forward), State(model)
    try:
        for alone, beside in _telling(passes.oracle, list(pairs), device):
            for shift in (contextlib.nullcontext(), moved(list(model.parameters()), 0)):
                with shift:
                    own = passes.plain(alone, _PADDED, frozen=True)
                    further = passes.plain(beside, _PADDED, frozen=True)
                if found := passes.oracle.differing(own, further):
                    raise ModelError(
                        f"parameter {found[0]}: an example's gradient {PADDED} (off by "
                        f"{100 * found[1]:.2g} %)"
                    )
    finally:
        state.restore()


def _telling(oracle: Oracle, pairs: list[Pair], device: torch.device) -> list[Pair]:
    """Some of different lengths, and those whose losses differ most."""
    if len(pairs) <= 2 * _TRIED:
        return pairs
    differ = []
    with torch.no_grad():
        for pair in pairs:
            values = []
            for batch in pair:
                with same_draws(device), FrozenDraws():
                    losses = oracle.losses(oracle.outputs(batch[0], _PADDED), batch[1], _PADDED)
                values.append(float(losses.sum()))
            differ.append(abs(values[0] - values[1]))
    most = sorted(range(len(pairs)), key=lambda at: -differ[at])[:_TRIED]
    spread = torch.linspace(0, len(pairs) - 1, _TRIED).long().tolist()
    return [pairs[at] for at in dict.fromkeys([*most, *spread])]
