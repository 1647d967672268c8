"""A compiled pass against autograd and the graph engine, before anything is charged."""

from __future__ import annotations

import math

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Forward, first, leaves, length, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.compiled.engine import CompiledVectors
from dpsgd_torch.gradients.compiled.held import CannotCompile
from dpsgd_torch.gradients.compiled.program import Program, padded
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.graph.layouts import Layouts
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.draws import same_draws
from dpsgd_torch.gradients.rehearsal.passes import Passes
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp
from dpsgd_torch.gradients.vectors import Vectors

_NORM = 1e-4  # relative: float32 added up in another order
_HALF = 2.0**-5  # relative: eight roundings to bfloat16
_OF = "training rows, compiled"


def compiled_program(
    model: nn.Module,
    loss: Loss,
    data: Batch,
    layouts: Layouts,
    forward: Forward,
    rows: int,
) -> Program:
    """A compiled pass over ``rows`` rows, shown right on these.

    * Its norms and its sums, clipped and not, are those of the graph engine, which was rehearsed
      against autograd before; its unclipped sum is autograd's own. In half precision, which each
      rounds elsewhere, as far as that rounds.
    * Its norms are those of what it sums, to float32, in any precision.
    * Rows that fill a batch up may hold anything: others there change nothing before them.

    Raises:
        CannotCompile: it fails, or is not shown right.
    """
    program = Program(model, loss, layouts, forward, rows)
    at = torch.arange(rows, device=first(data).device)
    given = taken(data, at % length(data[0]))
    program.build(given)
    try:
        _compare(program, model, loss, layouts, forward, given)
    except ModelError as error:
        raise CannotCompile(f"it is not right when compiled: {error}") from error
    return program


def _compare(
    program: Program,
    model: nn.Module,
    loss: Loss,
    layouts: Layouts,
    forward: Forward,
    given: Batch,
) -> None:
    n, device = max(1, program.rows - program.rows // 4), first(given).device
    batch = taken(given, torch.arange(n, device=device))
    if not program.fits(batch):
        raise CannotCompile("model or loss hold another value after each pass")
    passes = Passes(model, loss, device, forward)
    passes.oracle.in_half = bool(program.halves)
    named, params = passes.oracle.named, passes.oracle.params

    def run(fill: Batch | None = None) -> tuple[float, CompiledVectors]:
        with same_draws(device):
            left = program.run(batch, None if fill is None else lambda part, _: _over(part, fill))
        if left is None:
            raise CannotCompile("float64 does not settle the norms of some training rows")
        return left.loss_sum, CompiledVectors(program, left, params, named)

    losses, vectors = run()
    whole, keep = padded(batch, program.rows), torch.arange(program.rows, device=device) < n
    engine = GraphGradients(model, layouts, forward)
    try:
        eager = passes.engine(engine, whole, _OF)
    finally:
        engine.cleanup()
    kept = eager.norms[:n]
    finite = torch.isfinite(vectors.norms)
    if not finite.any():
        raise CannotCompile("no training row that it was tried on has a finite gradient")
    near, least = _NORM, 1e-30
    if program.halves:
        near, least = _HALF, _HALF * float(vectors.norms[finite].max())
    if not torch.allclose(vectors.norms, kept, rtol=near, atol=least, equal_nan=True):
        raise CannotCompile("norms are not those of the run without it")
    own = vectors.norms_written_out()[:n]
    if not torch.allclose(vectors.norms[finite], own[finite], rtol=_NORM, atol=1e-30):
        raise CannotCompile("norms are not those of what it sums")
    clip = float(vectors.norms[finite].median())
    for factors in ((clip / vectors.norms.double()).clamp(max=1.0), torch.ones_like(vectors.norms)):
        factors = factors.double().where(finite, 0.0)
        longer = torch.zeros_like(keep, dtype=torch.float64)
        longer[:n] = factors
        reference, scale = passes.summed(eager, longer)
        passes.refuse_wrong_sum(list(reference), _sums(vectors, factors), scale)
    if finite.all():
        plain = passes.plain(whole, _OF, frozen=False, factors=keep.to(torch.float32))
        passes.refuse_wrong_sum(plain, _sums(vectors, torch.ones_like(factors)), scale)
    made = MadeUp(given).batch(program.rows)
    again, others = run(made)
    same = torch.allclose(others.norms, vectors.norms, rtol=1e-6, atol=1e-30, equal_nan=True)
    moved = passes.oracle.differing(_sums(vectors, factors), _sums(others, factors), alike=True)
    if not same or moved or (again == again and abs(again - losses) > 1e-4 * abs(losses)):
        raise CannotCompile("rows beyond a batch's change those within")


def _sums(vectors: Vectors, factors: torch.Tensor) -> list[torch.Tensor]:
    found, _ = vectors.totals(factors, math.inf)
    return [total.flatten().double() for total in found]


def _over(batch: Batch, fill: Batch) -> Batch:
    """A batch with other rows after its own."""
    n = length(batch[0])
    filled: Batch = taken(fill, slice(None))
    for whole, part in zip(leaves(filled), leaves(batch), strict=True):
        whole[:n] = part
    return filled
