"""Secure mode, tried before the first charge: a row's gradient hangs on nothing but that row.

What is charged has room for last bits of norms and of sums, and none for a ReLU that falls on the
other side. So of passes of one size (``filled``) it is asked that not a bit of a row's vector moves
with its place and its company. Made-up rows tell: kernels are picked by shapes, not by values.
"""

from __future__ import annotations

import hashlib

import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.data.trees import first, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.methods import Method, per_example_gradients
from dpsgd_torch.gradients.rehearsal.passes import Passes
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp
from dpsgd_torch.gradients.vectors import Vectors
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
    places = sorted({size * k // _PLACES for k in range(_PLACES)} | {size - 1})
    own, by = torch.arange(size, device=first(made).device), size // 2 + 1
    try:
        with per_example_gradients(run.model, method.kind, method.layouts, run.forward) as engine:

            def told(which: torch.Tensor, at: list[int]) -> list[list[bytes]]:
                batch = taken(made, which)
                vectors = passes.engine(engine, batch, "made-up rows", frozen=True)
                return [_digests(vectors, place) for place in at]

            here = told(own, places)
            moved = told(own.roll(by), [(place + by) % size for place in places])
            alone = told(torch.full_like(own, places[-1]), [0])
        state.refuse_changes()
    finally:
        state.restore()
    for one, other in zip([*here, here[-1]], [*moved, *alone], strict=True):
        for name, a, b in zip(passes.oracle.named, one, other, strict=True):
            if a != b:
                raise ModelError(
                    f"parameter {name}: in passes of {size} rows its gradient for a row differs in "
                    "its last bits with the row's place, or with the other rows, which secure mode "
                    "does not charge for; pass physical_batch_size=1 or another, or leave out "
                    "secure"
                )


def _digests(vectors: Vectors, slot: int) -> list[bytes]:
    """A parameter each, so that no two gradients are held."""
    return [hashlib.blake2b(raw_bytes(part + 0.0)).digest() for part in vectors.vector(slot)]
