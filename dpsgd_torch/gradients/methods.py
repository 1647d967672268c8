"""Per-example gradient methods: all stored, or closed forms in the layers that have them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from accountant.errors import check
from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import length
from dpsgd_torch.gradients.grad_sample import PerExampleGradients, closed_forms_pay
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.gradients import Rehearsal
from dpsgd_torch.gradients.vectors import PerExample


@contextlib.contextmanager
def per_example_gradients(model: nn.Module, kind: str) -> Iterator[PerExample]:
    """The model with hooks on, which are taken off again."""
    check(kind in ("hooks", "ghost"), "gradients", kind, "must be auto, hooks or ghost")
    wrapped: PerExample = PerExampleGradients(model, closed_forms=kind == "ghost")
    try:
        yield wrapped
    finally:
        wrapped.cleanup()


def choose(wanted: str, model: nn.Module, loss: Loss, data: Batch, size: int) -> str:
    """The kind to take, once it was rehearsed on made-up and ``size`` real examples.

    "hooks" stores each example's gradients, "ghost" has closed forms for the layers that have one;
    "auto" takes the latter where all layers do, or those that do hold many parameters.

    Raises:
        ModelError: no kind of per-example gradients is right for this model and loss.
    """
    rehearsal = Rehearsal(model, loss, data, min(size, length(data[0])))
    rehearsal.oracle()
    kind = wanted
    if wanted == "auto":
        kind = "ghost" if closed_forms_pay(model) else "hooks"
    with per_example_gradients(model, kind) as wrapped:
        rehearsal.compare(wrapped)
    return kind
