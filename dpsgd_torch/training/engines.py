"""Which way a model's examples are kept apart: Opacus's hooks, or closed forms where there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from accountant.errors import check
from dpsgd_torch.errors import ModelError
from dpsgd_torch.training.ghost import GhostGradients, NoClosedForm, has_closed_form
from dpsgd_torch.training.grad_sample import PerExampleGradients
from dpsgd_torch.training.losses import Loss
from dpsgd_torch.training.validation import probe
from dpsgd_torch.training.vectors import PerExample


@contextlib.contextmanager
def per_example_gradients(model: nn.Module, kind: str) -> Iterator[PerExample]:
    """The model with hooks on, which are taken off again."""
    check(kind in ("hooks", "ghost"), "gradients", kind, "must be auto, hooks or ghost")
    try:
        wrapped: PerExample = (
            GhostGradients(model) if kind == "ghost" else PerExampleGradients(model)
        )
    except NotImplementedError as error:
        raise ModelError(f"model: has no per-example gradients in Opacus ({error})") from error
    try:
        yield wrapped
    finally:
        wrapped.cleanup()


def choose(
    wanted: str, model: nn.Module, loss: Loss, data: Sequence[torch.Tensor], size: int
) -> str:
    """The kind to take, once passes over ``size`` made-up examples have shown no mixing."""
    if wanted == "auto" and has_closed_form(model):
        with contextlib.suppress(NoClosedForm):
            return _probed("ghost", model, loss, data, size)
    return _probed("hooks" if wanted == "auto" else wanted, model, loss, data, size)


def _probed(
    kind: str, model: nn.Module, loss: Loss, data: Sequence[torch.Tensor], size: int
) -> str:
    with per_example_gradients(model, kind) as wrapped:
        probe(model, wrapped, loss, data, size)
    return kind
