"""Per-example gradients by a compiled pass, and by the graph engine where that does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dpsgd_torch.data.trees import Forward, Tree, call, first, length
from dpsgd_torch.gradients.compiled.program import Pass, Program
from dpsgd_torch.gradients.graph.engine import GraphGradients, _draws, _redraw
from dpsgd_torch.gradients.graph.layouts import Layouts
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.gradients.vectors import Vectors

_FEW = 4  # a piece below 1/4 of what is compiled goes without


class CompiledGradients:
    """The model's passes, each compiled where the program fits it; else the graph engine's.

    Which way a piece goes depends on that piece and on the model alone, so a step that is run
    again goes the same way.
    """

    def __init__(
        self,
        model: nn.Module,
        program: Program,
        layouts: Layouts | None = None,
        forward: Forward = call,
    ) -> None:
        self._eager = GraphGradients(model, layouts, forward)
        self.layouts, self._program = layouts, program
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._left: Pass | None = None
        self._took: tuple[Loss, Tree, Tree, tuple[torch.Tensor, ...]]

    def backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """Sum of the losses; what belongs to each example stays until ``vectors``."""
        self._left, batch = None, (inputs, targets)
        few = _FEW * length(inputs) < self._program.rows  # left over: less work as they are
        if not few and self._program.fits(batch):
            drawn = _draws(first(inputs).device)
            self._left = self._program.run(batch)
            self._took = (loss, inputs, targets, drawn)
            if self._left is not None:
                return self._left.loss_sum
            _redraw(first(inputs).device, drawn)
        return self._eager.backward(loss, inputs, targets)

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Vectors:
        left, self._left = self._left, None
        if left is not None and slots is not None:  # rows that share a vector: not compiled
            loss, inputs, targets, drawn = self._took
            _redraw(first(inputs).device, drawn)
            self._eager.backward(loss, inputs, targets)
            left = None
        if left is None:
            return self._eager.vectors(params, slots, weights)
        return CompiledVectors(self._program, left, params, self._named)

    def cleanup(self) -> None:
        self._eager.cleanup()


class CompiledVectors:
    """Vectors of a compiled pass (see ``gradients.vectors.Vectors``)."""

    margin = PartVectors.margin

    def __init__(
        self,
        program: Program,
        left: Pass,
        params: Sequence[nn.Parameter],
        named: dict[str, nn.Parameter],
    ) -> None:
        self.norms, self._params = left.norms, params
        self._program, self._left = program, left
        self._names = {p: name for name, p in named.items()}

    def part(self, places: Sequence[int]) -> Vectors:
        raise NotImplementedError("compiled sums take one factor for all parameters")

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        found, error = self.totals(factors, within)
        for total, more in zip(sums, found, strict=True):
            total += more
        return error

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        sums, errors = self._summed(factors, within)
        return sums, math.sqrt(sum(errors))

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        return zip(*self._summed(factors, within), strict=True)

    @torch.no_grad()
    def _summed(
        self, factors: torch.Tensor, within: float
    ) -> tuple[list[torch.Tensor], list[float]]:
        """Sums, and the square of what was rounded away in each."""
        padded = factors.new_zeros(self._program.rows, dtype=torch.float64)
        padded[: len(factors)] = factors
        found, spent = self._program.sums(self._left.tensors, padded), 0.0
        sums: list[torch.Tensor] = []
        errors: list[float] = []
        for p in self._params:
            total, error = found.get(self._names[p], (None, 0.0))
            if total is None:  # the loss does not reach it
                total = p.new_zeros(p.shape, dtype=torch.float64)
            elif not error <= (within**2 - spent) / 2 and error != 0.0:  # NaN is not
                part, error = self._program.parts(self._left.tensors)[self._names[p]], 0.0
                total = torch.zeros(p.shape, dtype=torch.float64, device=p.device)
                part.add_to(total, padded, 0.0)
            sums.append(total.view(p.shape))
            errors.append(error)
            spent += error
        return sums, errors

    def written(self, slot: int) -> Iterator[torch.Tensor]:
        return iter(self.vector(slot))

    def norm(self, slot: int) -> float:
        at, norm = self._left.largest
        return norm if at == slot else self._written_out().norm(slot)

    def vector(self, slot: int) -> list[torch.Tensor]:
        return self._written_out().vector(slot)

    def norms_told(self, slot: int) -> list[float]:
        return self._written_out().norms_told(slot)

    def norms_written_out(self) -> torch.Tensor:
        """Of all rows, those that fill up too, from the very parts that are summed."""
        return self._written_out().norms

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._left.tensors)

    def _written_out(self) -> PartVectors:
        parts = self._program.parts(self._left.tensors)
        by_param = {p: parts[name] for p, name in self._names.items() if name in parts}
        return PartVectors(by_param, self._params, self._program.rows)
