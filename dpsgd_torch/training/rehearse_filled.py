"""Secure mode, tried before the first charge: a row's gradient hangs on nothing but that row.

What is charged has room for last bits of norms and of sums, and none for a ReLU that falls on the
other side. So of passes of one size (``filled``) it is asked that not a bit of a row's vector moves
with its place and its company. Made-up rows tell: kernels are picked by shapes, not by values.
"""

from __future__ import annotations

import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import first, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.methods import Method, per_example_gradients
from dpsgd_torch.gradients.rehearsal.passes import Passes
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp
from dpsgd_torch.gradients.vectors import PerExample
from dpsgd_torch.training.state import RunState

_PLACES = 5  # of a pass, whose rows are looked at


def refuse_moving(run: RunState, method: Method, rows: Batch) -> None:
    """Refuse passes in which a row's vector hangs on where it stands or who else is there.

    Args:
        rows: whose shapes and range the made-up ones have.

    Raises:
        ModelError: naming the parameter.
    """
    size = run.at_once
    if size == 1:  # always alone
        return
    made, state = MadeUp(rows).batch(size), State(run.model)
    passes = Passes(run.model, run.loss, first(rows).device, run.forward)
    try:
        with per_example_gradients(run.model, method.kind, method.layouts, run.forward) as engine:
            for at in sorted({size * k // _PLACES for k in range(_PLACES)} | {size - 1}):
                _refuse(passes, engine, made, at)
        state.refuse_changes()
    finally:
        state.restore()


def _refuse(passes: Passes, engine: PerExample, made: Batch, at: int) -> None:
    """The row at ``at``, among others; in another place; and among copies of itself."""
    size = len(first(made))
    own = torch.arange(size, device=first(made).device)
    to = (at + size // 2 + 1) % size
    here, *others = (
        passes.engine(engine, taken(made, rows), "made-up rows", frozen=True).vector(place)
        for rows, place in ((own, at), (own.roll(to - at), to), (torch.full_like(own, at), 0))
    )
    for other in others:
        for name, a, b in zip(passes.oracle.named, here, other, strict=True):
            if not torch.equal(a, b) and not (a.isnan() & b.isnan() | (a == b)).all():
                raise ModelError(
                    f"parameter {name}: in passes of {size} rows its gradient for a row differs in "
                    "its last bits with the row's place, or with the other rows, which secure mode "
                    "does not charge for; pass physical_batch_size=1 or another, or leave out "
                    "secure"
                )
