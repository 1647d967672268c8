"""The compiled pass of a run: of which size, and what stands against it."""

from __future__ import annotations

import dataclasses
import warnings

from torch import nn

from accountant.errors import check
from dpsgd_torch.data.base import Batch
from dpsgd_torch.gradients.compiled.compiler import compiler
from dpsgd_torch.gradients.compiled.held import CannotCompile
from dpsgd_torch.gradients.compiled.program import Program
from dpsgd_torch.gradients.compiled.rehearsal import compiled_program
from dpsgd_torch.gradients.methods import Method
from dpsgd_torch.training.filled import rows_of_pass
from dpsgd_torch.training.private_optimizer import sums_are_long
from dpsgd_torch.training.state import RunState

_ABOVE = 1.5  # of √B: what is left over takes the graph engine's pass, so less is filled up


def compiled(run: RunState, method: Method, rows: Batch) -> Method:
    """The method, compiled; as it is, with a warning that says why, where that cannot be.

    Raises:
        InvalidValue: the kind of per-example gradients that was asked for is none to compile.
    """
    check(
        method.kind == "graph",
        "compile",
        True,
        f"compiles gradients='graph', and {method.kind} was asked for; leave out one of them",
    )
    program, why = None, ""
    try:
        program = _program(run, method, rows)
    except CannotCompile as error:
        why = str(error)
    told = run.world.exchange("a compiled pass", why)
    if why := next(filter(None, told), ""):
        if run.world.is_first:
            warnings.warn(f"compile: {why}; the run goes on without it", stacklevel=2)
        return method
    return dataclasses.replace(method, kind="compiled", program=program)


def _program(run: RunState, method: Method, rows: Batch) -> Program:
    compiler()
    if run.sampling.rows_per_unit or run.sampling.microbatch_size > 1:
        raise CannotCompile("several rows share a vector here, and are not compiled")
    if run.precision.loss_scale != 1:
        raise CannotCompile(f"precision {run.precision} has a loss scale, and is not compiled")
    if run.data.schema.varies:
        raise CannotCompile("rows differ in length here, and each length would be compiled anew")
    at_most, ranks = run.physical_batch_size, run.world.size
    size = rows_of_pass(run.sampling.batch_size, at_most, ranks, above=_ABOVE)
    if sums_are_long(run.sampling.batch_size, size, run.world.size):
        raise CannotCompile(f"so many sums of {size} rows could round to more than is charged")
    assert method.layouts is not None
    return compiled_program(run.model, run.loss, rows, method.layouts, run.forward, size)


def seconds_to_compile(model: nn.Module) -> int:
    """About how long it takes on one core where nothing is cached: the compiler, then each layer.

    >>> seconds_to_compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    20
    """
    layers = sum(1 for layer in model.modules() if list(layer.parameters(recurse=False)))
    return 5 * round((15 + 3 * layers) / 5)
