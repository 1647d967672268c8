"""Which way a model's examples are kept apart: Opacus's hooks, or closed forms where there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from accountant.errors import check
from dpsgd_torch.gradients.ghost import GhostGradients, NoClosedForm, has_closed_form
from dpsgd_torch.gradients.grad_sample import PerExampleGradients
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.gradients import Rehearsal
from dpsgd_torch.gradients.vectors import PerExample


@contextlib.contextmanager
def per_example_gradients(model: nn.Module, kind: str) -> Iterator[PerExample]:
    """The model with hooks on, which are taken off again."""
    check(kind in ("hooks", "ghost"), "gradients", kind, "must be auto, hooks or ghost")
    wrapped: PerExample = GhostGradients(model) if kind == "ghost" else PerExampleGradients(model)
    try:
        yield wrapped
    finally:
        wrapped.cleanup()


def choose(
    wanted: str, model: nn.Module, loss: Loss, data: Sequence[torch.Tensor], size: int
) -> str:
    """The kind to take, once it was rehearsed on made-up and ``size`` real examples.

    Raises:
        ModelError: no kind of per-example gradients is right for this model and loss.
    """
    rehearsal = Rehearsal(model, loss, data, min(size, len(data[0])))
    rehearsal.oracle()
    if wanted == "auto" and has_closed_form(model):
        with contextlib.suppress(NoClosedForm):
            return _rehearsed("ghost", model, rehearsal)
    return _rehearsed("hooks" if wanted == "auto" else wanted, model, rehearsal)


def _rehearsed(kind: str, model: nn.Module, rehearsal: Rehearsal) -> str:
    with per_example_gradients(model, kind) as wrapped:
        rehearsal.compare(wrapped)
    return kind
