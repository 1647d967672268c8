"""The private pass as two compiled functions: gradients and norms; then sums, by their factors.

What is traced is the graph engine itself, over tensors without values (``make_fx``): of the walk,
the rules and the parts of ``gradients.graph`` the operations on tensors are left, in one flat graph
without a break. So whatever model that engine takes can be compiled, and there is no second set of
rules to keep right.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn.utils import stateless

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Forward, Tree, first, leaves, length, mapped, taken
from dpsgd_torch.gradients.compiled.held import CannotCompile, Held
from dpsgd_torch.gradients.compiled.skeleton import Skeleton, taken_apart
from dpsgd_torch.gradients.compiled.stage import Stage
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.graph.layouts import Layouts
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.parts import Part
from dpsgd_torch.gradients.parts.tracing import tracing


@dataclass(frozen=True)
class Pass:
    """What one compiled pass left: ``norms`` of the rows given, and parts of all ``rows``."""

    loss_sum: float
    norms: torch.Tensor
    largest: tuple[int, float]  # the row of the largest norm, and that norm in float64
    tensors: list[torch.Tensor]


class Program:
    """A compiled pass over ``rows`` rows, of which those beyond a batch's count for nothing.

    * A batch of n ≤ rows is filled up with copies of its first row, so one compiled function serves
      every size that a Poisson sampler draws.
    * Rows beyond n, and rows whose gradient is not finite, are *replaced* by zeros in every part
      before anything is added up (``Part.silenced``: a selection, not a product; 0 × NaN is NaN).
      What they held then is in no sum: row i of every tensor of a part is example i's, each is 0,
      and its factor is 0 as well. Their losses are replaced alike, their norms cut off.
    * They cannot change the rows before them either: examples are islands, which is rehearsed with
      other rows in their place before anything is charged.

    Rounding, all covered by the margin of 2⁻⁹ C that is kept back anyway: squares of norms are
    summed in float64 from the float32 values of the parts. A fused loop may compute such a value
    once for the norm and once for the part; both are float32, a few roundings (2⁻²⁴) of the same
    value apart, so a norm is off by a relative 1e-6 where half the margin is 1e-3 [Higham 2002,
    Section 3.1]. Sums are float64, or one float32 product whose error was measured, as in the eager
    engine (``add_outer``). The largest clipped norm of each piece is computed again from the parts
    that are summed, in float64, and checked.

    In mixed precision that would not hold: a loop that rounds to bfloat16 as it stores and not as
    it goes on has two values a relative 2⁻⁹ apart. So there the pass is two graphs: the first ends
    in the parts, widened to float32 in memory; the second reads norms and what is summed from that
    memory, in float32 and float64 alone. Whatever was rounded before, the vector that is clipped is
    the vector that is summed.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        layouts: Layouts,
        forward: Forward,
        rows: int,
    ) -> None:
        self.rows, self.seconds, self.draws = rows, 0.0, False
        self._model, self._loss, self._layouts, self._forward = model, loss, layouts, forward
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._skeletons: dict[str, Skeleton] = {}
        self._raw: dict[str, Skeleton] = {}  # before any row is silenced
        self._stages: list[Stage] = []
        self._sum: Stage | None = None
        self.halves: set[torch.dtype] = set()
        self.traced: list[GraphModule] = []

    def build(self, batch: Batch) -> None:
        """Trace and compile, on one batch.

        Raises:
            CannotCompile: what stands against it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch to itself
            self._build(batch)

    def _build(self, batch: Batch) -> None:
        began = time.monotonic()
        self._held = Held.of(self._model, self._loss, batch)
        self._held.refuse_hidden()
        inputs, targets = padded(batch, self.rows)
        count = torch.tensor(length(batch[0]), device=first(inputs).device)
        given = (self._state(), leaves(inputs), leaves(targets), count)
        self._places = (_placed(inputs), _placed(targets))
        whole = Stage(self._whole, given)
        self.halves, self.draws = whole.halves(), whole.draws()
        if self.halves:
            self._refuse_half()
            read = Stage(self._read, given[:3])
            left = (count, *_begun(read, given[:3]))
            self._stages = [read, Stage(self._told, left)]
            tensors = _begun(self._stages[1], left)[4:]
        else:
            self._stages = [whole]
            tensors = _begun(whole, given)[4:]
        factors = torch.ones(self.rows, dtype=torch.float64, device=count.device)
        self._sums(tensors, factors)  # once with values: fills the caches of constants
        self._sum = Stage(self._sums, (tensors, factors), constants=True)
        _begun(self._sum, (tensors, factors))
        self.traced = [stage.graph for stage in (*self._stages, self._sum)]
        self.seconds = time.monotonic() - began

    def fits(self, batch: Batch) -> bool:
        """Whether a batch is of what was compiled, and model and loss are as they were."""
        assert self._held
        return length(batch[0]) <= self.rows and self._held == Held.of(
            self._model, self._loss, batch
        )

    @torch.no_grad()
    def run(self, batch: Batch, fill: Callable[[Batch, int], Batch] | None = None) -> Pass | None:
        """One pass; None where a row is in doubt, which the eager engine settles."""
        n = length(batch[0])
        inputs, targets = (fill or padded)(batch, self.rows)
        count = torch.tensor(n, device=first(inputs).device)
        given = (self._state(), leaves(inputs), leaves(targets))
        if len(self._stages) == 1:
            found = self._stages[0](*given, count)
        else:
            found = self._stages[1](count, *self._stages[0](*given))
        told, norms, at, largest, *tensors = found
        loss_sum, doubt = told.tolist()
        if doubt:
            return None
        return Pass(loss_sum, norms[:n], (int(at), float(largest)), tensors)

    @torch.no_grad()
    def sums(
        self, tensors: list[torch.Tensor], factors: torch.Tensor
    ) -> dict[str, tuple[torch.Tensor, float]]:
        """Each reached parameter's Σ factor × row, and its error's square beyond float64's."""
        assert self._sum is not None
        errors, *found = self._sum(tensors, factors)
        return dict(zip(self._skeletons, zip(found, errors.tolist(), strict=True), strict=True))

    def parts(self, tensors: Sequence[torch.Tensor]) -> dict[str, Part]:
        """What the tensors are of each parameter, by name."""
        return {name: each.filled(tensors) for name, each in self._skeletons.items()}

    def _state(self) -> dict[str, torch.Tensor]:
        named = dict(self._model.named_parameters(remove_duplicate=False))
        return named | dict(self._model.named_buffers(remove_duplicate=False))

    def _whole(
        self,
        state: Mapping[str, torch.Tensor],
        inputs: list[torch.Tensor],
        targets: list[torch.Tensor],
        count: torch.Tensor,
    ) -> list[torch.Tensor]:
        return self._told(count, *self._read(state, inputs, targets))

    def _read(
        self,
        state: Mapping[str, torch.Tensor],
        inputs: list[torch.Tensor],
        targets: list[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Losses, rows in doubt, and the tensors of the parts."""
        batch = [
            mapped(lambda at, held=held: held[at], places)
            for held, places in zip((inputs, targets), self._places, strict=True)
        ]
        with tracing() as doubts, stateless._reparametrize_module(self._model, dict(state)):
            engine = GraphGradients(self._model, self._layouts, self._forward)
            try:
                losses, parts = engine.once(self._loss, *batch)
            finally:
                engine.cleanup()
        tensors: list[torch.Tensor] = []
        self._raw = {name: taken_apart(part, tensors) for name, part in parts.items()}
        return [losses, _any(doubts, losses), *tensors]

    @torch.no_grad()
    def _told(
        self, count: torch.Tensor, losses: torch.Tensor, doubt: torch.Tensor, *found: torch.Tensor
    ) -> list[torch.Tensor]:
        """Sum of losses and whether a row is in doubt, norms, the largest, and what is summed."""
        parts = {name: each.filled(found) for name, each in self._raw.items()}
        keep = torch.arange(self.rows, device=losses.device) < count
        squared = losses.new_zeros(self.rows, dtype=torch.float64)
        with tracing() as doubts:
            for part in parts.values():
                square, error = part.squared_norms()
                squared = squared + square.double() + error.double()
            doubt = (keep & _any([doubt, *doubts], losses)).any()
            norms = squared.sqrt().float()
            silent = ~(keep & torch.isfinite(norms))
            tensors: list[torch.Tensor] = []
            largest = norms.masked_fill(silent, -1.0).argmax()
            exact = squared.new_zeros(())
            for name, part in parts.items():
                part = part.silenced(silent)
                exact = exact + part.widened(largest[None]).squared_norms()[0].sum()
                self._skeletons[name] = taken_apart(part, tensors)
        loss_sum = losses.masked_fill(~keep, 0.0).sum()
        told = torch.stack([loss_sum.double(), doubt.double()])
        return [told, norms, largest, exact.sqrt(), *tensors]

    @torch.no_grad()
    def _sums(self, tensors: list[torch.Tensor], factors: torch.Tensor) -> list[torch.Tensor]:
        found, errors = list[torch.Tensor](), list[torch.Tensor]()
        with tracing():
            for part in self.parts(tensors).values():
                measured = part.measured(factors)
                if measured is None:
                    total = torch.zeros(part.shape, dtype=torch.float64, device=factors.device)
                    part.add_to(total, factors, 0.0)
                    measured = total, factors.new_zeros(())
                found.append(measured[0])
                errors.append(measured[1].double())
        return [torch.stack(errors), *found]

    def _refuse_half(self) -> None:
        if torch.float16 in self.halves:
            raise CannotCompile(
                "float16 needs a loss scale, and passes with one are not compiled; bf16 is"
            )
        held = (name for name, t in self._state().items() if t.dtype == torch.bfloat16)
        if name := next(held, ""):
            raise CannotCompile(f"{name} is held in bfloat16; keep float32, and pass precision")


def padded(batch: Batch, rows: int) -> Batch:
    """Copies of the first row in place of those that lack.

    >>> padded((torch.tensor([5, 6]), torch.tensor([0, 1])), 4)[0]
    tensor([5, 6, 5, 5])
    """
    n = length(batch[0])
    if n == rows:
        return batch
    at = torch.arange(rows, device=first(batch).device)
    at[n:] = 0
    filled: Batch = taken(batch, at)
    return filled


def _placed(tree: Tree) -> Tree:
    places = iter(range(len(leaves(tree))))
    return mapped(lambda _: next(places), tree)


def _any(masks: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Rows that any of the masks names."""
    none = torch.zeros(like.shape[0], dtype=torch.bool, device=like.device)
    return torch.stack([none, *masks]).any(0)


@torch.no_grad()
def _begun(stage: Stage, given: tuple[Any, ...]) -> list[torch.Tensor]:
    return stage.begin(*given)
