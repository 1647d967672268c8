"""Passes over the same rows by an engine and by autograd, and what their gradients must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import Forward, call, leaves, mapped
from dpsgd_torch.data.trees import length as rows_of
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.capture import mixing
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal.carried import carried
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Gradient, Oracle
from dpsgd_torch.gradients.vectors import PerExample, Vectors, length

_NORM = 1e-3  # relative: what is wrong is off by more, what is rounding by far less
_HAIR = 1e-5  # relative: norms in float32
_TOO_LONG = 1e-2  # relative: a bound on rounding may be added to a norm
_ROUNDING = 1e-4  # of the largest norm: what is added where terms cancel
RIGHT = {  # by engine: why its gradients may be wrong, and what to do
    "graph": (
        "examples mix before it, or the rule of an operation that it meets is wrong",
        "remove what works across the batch, or pass gradients='opacus'",
    ),
    "opacus": (
        "it is used outside its own layer's forward (by a function or another module), or that "
        "layer's rule is wrong",
        "pass gradients='graph'",
    ),
}


class Again:
    """Tensors that are made anew whenever they are gone through, one at a time."""

    def __init__(self, make: Callable[[], Iterator[torch.Tensor]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self._make()


Slots = tuple[torch.Tensor, torch.Tensor] | tuple[()]


class Passes:
    """Passes of a model by an engine and by autograd; ``drew`` says whether frozen ones drew.

    Args:
        model: in training mode.
        loss: one value per example.
        forward: what outputs come from.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, device: torch.device, forward: Forward = call
    ) -> None:
        self.oracle, self._loss, self.device = Oracle(model, loss, forward), loss, device
        self.drew = False
        self.why, self.move = RIGHT["graph"]

    def engine(
        self, engine: PerExample, batch: Batch, of: str, *, frozen: bool = False, slots: Slots = ()
    ) -> Vectors:
        """The engine's vectors; ``frozen`` draws are constants."""
        what = f"per-example gradients over {rows_of(batch)} {of}"
        with same_draws(self.device), blamed(what, self.oracle.model):
            if frozen:
                with carried(FrozenDraws()) as draws:
                    engine.backward(self._loss, *batch)
                self.drew = self.drew or draws.drew
            else:
                engine.backward(self._loss, *batch)
            return engine.vectors(self.oracle.params, *slots)

    def plain(
        self, batch: Batch, of: str, *, frozen: bool, factors: torch.Tensor | None = None
    ) -> Gradient:
        """Autograd's gradient of the sum of the losses, weighted."""
        with same_draws(self.device):
            if not frozen:
                return self.oracle.gradient(batch, of, factors)
            with carried(FrozenDraws()) as draws:
                gradient = self.oracle.gradient(batch, of, factors)
            self.oracle.in_half = self.oracle.in_half or draws.in_half
            self.drew = self.drew or draws.drew
            return gradient

    def alone(self, batch: Batch, row: int, of: str) -> Gradient:
        """Of one row by itself, nothing drawn."""
        return self.plain(rows(batch, slice(row, row + 1)), of, frozen=True)

    def summed(self, vectors: Vectors, factors: torch.Tensor) -> tuple[Again, float]:
        """Σ factor × vector, and Σ factor × norm, which is what it is rounded against."""
        scale = float((factors * vectors.norms)[factors > 0].double().sum())
        return Again(
            lambda: (total.flatten() for total, _ in vectors.one_by_one(factors, 0.0, keep=True))
        ), scale

    def refuse_wrong_sum(self, reference: Gradient, total: Again, scale: float) -> None:
        self.refuse_wrong(self.oracle.differing(reference, total, scale))

    def refuse_wrong(self, found: tuple[str, float] | None) -> None:
        """Refuse a parameter whose sum was found to differ, and by how much of it."""
        if found:
            raise ModelError(
                f"parameter {found[0]}: its per-example gradients do not add up to autograd's "
                f"gradient (off by {100 * found[1]:.2g} %): {self.why}; {self.move}, or freeze "
                "it by requires_grad_(False)"
            )

    def refuse_not_alone(
        self,
        engine: PerExample,
        vectors: Vectors,
        slot: int,
        batch: Batch,
        other: Batch,
        of: str,
    ) -> None:
        """Its vector is the gradient that an example has alone, and its norm is its vector's.

        Args:
            vectors: of ``batch``, nothing drawn.
            other: other rows, to tell why where it is not.
        """
        if found := self.oracle.differing(self.alone(batch, slot, of), vectors.written(slot)):
            others = rows(other, slice(None))
            self.refuse_influence(engine, vectors, slot, batch, others, of, frozen=True)
            raise ModelError(
                f"parameter {found[0]}: in a batch of {rows_of(batch[0])}, an example's gradient "
                f"is not the one it has alone (off by {100 * found[1]:.2g} %): it may depend "
                "neither on how many others there are (len(x), a mean over the batch), nor on "
                "their order, nor on what the model remembers of earlier passes; where none is "
                f"so, {self.why}, and {self.move}"
            )
        self.refuse_wrong_norm(vectors, slot)

    def refuse_wrong_norm(self, vectors: Vectors, slot: int) -> None:
        """The norm that a vector is clipped by is the vector's, or a little above it.

        Where it is not to a hair, so it must be in each parameter.
        """
        finite = vectors.norms[torch.isfinite(vectors.norms)]
        rounding = _ROUNDING * float(finite.max()) if finite.numel() else 0.0
        told, true = float(vectors.norms[slot]), length(vectors.written(slot))
        if not math.isfinite(told) or abs(told - true) <= _HAIR * true:
            return
        own = [float(part.norm()) for part in vectors.written(slot)]
        names = zip(self.oracle.named, vectors.norms_told(slot), own, strict=True)
        for name, a, b in [*names, ("of all", told, true)]:
            if not a >= b * (1 - _NORM) - _HAIR * true:
                lets = "let too much through"
            elif a > b * (1 + _TOO_LONG) + rounding:
                lets = "take too much away"
            else:
                continue
            raise ModelError(
                f"parameter {name}: a norm is {a / max(b, 1e-300):.3g} of its vector's, so "
                f"the clip would {lets}: a rule that it goes by is wrong; {self.move}"
            )

    def refuse_influence(
        self,
        engine: PerExample,
        vectors: Vectors,
        slot: int,
        batch: Batch,
        other: Batch,
        of: str,
        *,
        frozen: bool = False,
    ) -> None:
        """The others of a batch may hold anything: those of ``other``, which is written to."""
        for a, b in zip(leaves(other), leaves(batch), strict=True):
            a[slot] = b[slot]
        before = self.narrowed(vectors.written(slot))
        after = self.engine(engine, other, of, frozen=frozen).written(slot)
        if found := self.oracle.differing(before, after, alike=True):
            raise mixing(f"parameter {found[0]}:")

    def narrowed(self, vector: Iterable[torch.Tensor]) -> Gradient:
        """In the parameters' own precision, to be held on to."""
        return [v.to(p.dtype) for v, p in zip(vector, self.oracle.params, strict=True)]


def rows(batch: Batch, which: slice | torch.Tensor) -> Batch:
    """Some rows, to be written to."""
    alone: Batch = mapped(lambda tensor: tensor[which].clone(), batch)
    return alone
