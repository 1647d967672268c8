"""Per-example gradient methods: the graph that autograd built, or Opacus's hooks on layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from accountant.errors import check
from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Forward, call, length
from dpsgd_torch.gradients.compiled.engine import CompiledGradients
from dpsgd_torch.gradients.compiled.program import Program
from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.graph.layouts import Layouts
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.gradients import Rehearsal
from dpsgd_torch.gradients.vectors import PerExample

RENAMED = {"hooks": "opacus", "ghost": "graph"}  # what the kinds were called in earlier releases


@contextlib.contextmanager
def per_example_gradients(
    model: nn.Module,
    kind: str,
    layouts: Layouts | None = None,
    forward: Forward = call,
    scale: float = 1.0,
    program: Program | None = None,
    alone: bool = False,
) -> Iterator[PerExample]:
    """The model's per-example gradients by one method; the rest is what a rehearsal found.

    ``alone``: a pass never has more than one example.
    """
    wrapped: PerExample
    if kind == "graph":
        wrapped = GraphGradients(model, layouts, forward, scale, alone)
    elif program is not None:
        wrapped = CompiledGradients(model, program, layouts, forward)
    else:
        check(kind == "opacus", "gradients", kind, "must be auto, graph or opacus")
        wrapped = OpacusGradients(model)
    try:
        yield wrapped
    finally:
        wrapped.cleanup()


@dataclass(frozen=True)
class Method:
    """A method that was rehearsed, and what its rehearsal found.

    ``automatic``: nobody asked for this kind, so a resumed run takes the one it began with;
    ``program``: compiled passes, where the kind is "compiled".
    """

    kind: str
    layouts: Layouts | None = None
    automatic: bool = False
    program: Program | None = None


def choose(
    wanted: str,
    model: nn.Module,
    loss: Loss,
    data: Batch,
    sized: Callable[[Callable[[], int]], int],
    forward: Forward = call,
    others: Sequence[Batch] = (),
    scale: float = 1.0,
) -> Method:
    """The method to take, once it was rehearsed on made-up and on real examples.

    "graph" reads the graph that autograd built, for any model; "opacus" stores each example's
    gradients by Opacus's grad samplers; "auto" takes the former.

    Args:
        sized: how many real ones a pass has; it may ask for the bytes that an example takes.
        forward: what outputs come from.
        others: real examples in batches of other shapes, which steps will see too.
        scale: the loss scale of a pass through float16.

    Raises:
        ModelError: this kind of per-example gradients is not right for this model and loss.
    """
    rehearsal = Rehearsal(model, loss, data, forward, scale)
    rehearsal.oracle()
    kind = "graph" if wanted == "auto" else wanted
    with per_example_gradients(model, kind, forward=forward, scale=scale) as wrapped:
        rehearsal.islands(wrapped)
        size = sized(rehearsal.bytes_of_one)
        rehearsal.real(wrapped, min(size, length(data[0])))
        for batch in others:
            other = Rehearsal(model, loss, batch, forward, scale)
            other.real(wrapped, min(size, length(batch[0])))
        return Method(kind, getattr(wrapped, "layouts", None), wanted == "auto")
