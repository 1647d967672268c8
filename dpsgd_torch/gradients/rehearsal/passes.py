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
from dpsgd_torch.gradients.rehearsal.draws import HALF, FrozenDraws, same_draws
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

    Where a pass goes through half precision (autocast, the model's own casts), two precisions are
    compared, each with what is the same there:

    * Passes of one shape round alike, row by row: that the others do not matter, and that vectors
      add up to autograd's gradient, is asked of the pass as it is.
    * An example alone, or in another batch, goes through kernels that round otherwise, by 2⁻⁸ in
      each operation; where terms cancel (a key's bias under softmax, whose gradient is 0) nothing
      but that rounding is left. So that is asked ``exactly``: of the same operations, whose casts
      to half give float32.

    Args:
        model: in training mode.
        loss: one value per example.
        forward: what outputs come from.
        scale: the loss scale of a pass through float16.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        device: torch.device,
        forward: Forward = call,
        scale: float = 1.0,
    ) -> None:
        self.oracle = Oracle(model, loss, forward, scale)
        self._loss, self.device, self._scaled = loss, device, scale != 1
        self.drew = False
        self.why, self.move = RIGHT["graph"]

    def goes_exactly(self, batch: Batch) -> bool:
        """Whether a pass goes through half precision that can be left out: none is held in it."""
        held = self.oracle.holds_half or any(leaf.dtype in HALF for leaf in leaves(batch))
        return self.oracle.in_half and not held

    def engine(
        self,
        engine: PerExample,
        batch: Batch,
        of: str,
        *,
        frozen: bool = False,
        exactly: bool = False,
        slots: Slots = (),
    ) -> Vectors:
        """The engine's vectors; ``frozen`` draws are constants."""
        what = f"per-example gradients over {rows_of(batch)} {of}"
        with same_draws(self.device), blamed(what, self.oracle.model):
            if frozen or exactly:
                with carried(FrozenDraws(exact=exactly)) as draws:
                    engine.backward(self._loss, *batch)
                self.oracle.in_half = self.oracle.in_half or draws.in_half
                self.drew = self.drew or draws.drew
            else:
                engine.backward(self._loss, *batch)
            return engine.vectors(self.oracle.params, *slots)

    def plain(
        self,
        batch: Batch,
        of: str,
        *,
        frozen: bool,
        exactly: bool = False,
        factors: torch.Tensor | None = None,
    ) -> Gradient:
        """Autograd's gradient of the sum of the losses, weighted."""
        with same_draws(self.device):
            if not (frozen or exactly):
                return self.oracle.gradient(batch, of, factors)
            with carried(FrozenDraws(exact=exactly)) as draws:
                gradient = self.oracle.gradient(batch, of, factors)
            if draws.in_fp16 and not self._scaled:
                raise ModelError(
                    "autocast = float16: what is small in it is lost without a loss scale; pass "
                    "precision='fp16' in its place, or take torch.bfloat16"
                )
            self.oracle.in_half = self.oracle.in_half or draws.in_half
            self.drew = self.drew or draws.drew
            return gradient

    def alone(self, batch: Batch, row: int, of: str, *, exactly: bool = False) -> Gradient:
        """Of one row by itself, nothing drawn."""
        return self.plain(rows(batch, slice(row, row + 1)), of, frozen=True, exactly=exactly)

    def summed(self, vectors: Vectors, factors: torch.Tensor) -> tuple[Again, float]:
        """Σ factor × vector, and Σ factor × norm, which is what it is rounded against."""
        scale = float((factors * vectors.norms)[factors > 0].double().sum())
        return Again(
            lambda: (total.flatten() for total, _ in vectors.one_by_one(factors, 0.0, keep=True))
        ), scale

    def refuse_wrong_sum(
        self,
        reference: Gradient,
        total: Iterable[torch.Tensor],
        scale: float,
        *,
        exactly: bool = False,
    ) -> None:
        self.refuse_wrong(self.oracle.differing(reference, total, scale, exact=exactly))

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
        *,
        exactly: bool = False,
    ) -> None:
        """Its vector is the gradient that an example has alone, and its norm is its vector's.

        Args:
            vectors: of ``batch``, nothing drawn.
            other: other rows, to tell why where it is not.
            exactly: these vectors are of an exact pass; else one is made where there can be.
        """
        if not exactly and self.goes_exactly(batch):
            self.refuse_wrong_norm(vectors, slot)
            vectors = self.engine(engine, batch, of, exactly=True)
            self.refuse_not_alone(engine, vectors, slot, batch, other, of, exactly=True)
            return
        alone = self.alone(batch, slot, of, exactly=exactly)
        if found := self.oracle.differing(alone, vectors.written(slot), exact=exactly):
            del alone
            others = rows(other, slice(None))
            if not exactly:
                self.refuse_influence(engine, vectors, slot, batch, others, of, frozen=True)
            else:
                whole = self.engine(engine, batch, of, frozen=True)
                self.refuse_influence(engine, whole, slot, batch, others, of, frozen=True)
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
