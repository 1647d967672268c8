"""Every example is an island, and its vector is its gradient: shown before anything is charged.

Autograd on one example at a time, without hooks, is the oracle. What shows only on some data, or
in batches of some sizes only, can pass: it is a net, not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import first as first_of
from dpsgd_torch.data.trees import leaves, mapped, taken
from dpsgd_torch.data.trees import length as rows_of
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.blame import blamed
from dpsgd_torch.gradients.capture import Capture, leaves_beside
from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal import memory
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Gradient, Oracle
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp
from dpsgd_torch.gradients.trained_layers import layers_of
from dpsgd_torch.gradients.vectors import PerExample, Vectors, length

_MANY = 5  # made-up examples
_NORM = 1e-3  # relative: what is wrong is off by more, what is rounding by far less
_HAIR = 1e-5  # relative: norms in float32
_TOO_LONG = 1e-2  # relative: a bound on rounding may be added to a norm
_ROUNDING = 1e-4  # of the largest norm: what is added where terms cancel
_RIGHT = {  # by engine: why its gradients may be wrong, and what to do
    "graph": ("the rule of an operation that it meets is wrong", "pass gradients='opacus'"),
    "opacus": (
        "it is used outside its own layer's forward (by a function or another module), or that "
        "layer's rule is wrong",
        "pass gradients='graph'",
    ),
}
_MADE_UP = "made-up examples of the data's shape and range"
_REAL = "of the first real examples"


class Rehearsal:
    """Passes over made-up and real examples, compared with the oracle's.

    Args:
        model: in training mode; given back as it was.
        loss: one value per example.
        data: inputs and targets.
        size: how many real examples go into the largest pass.
    """

    def __init__(self, model: nn.Module, loss: Loss, data: Batch, size: int) -> None:
        self._oracle, self._loss, self._state = Oracle(model, loss), loss, State(model)
        made = MadeUp(data)
        self._made, self._other = made.batch(_MANY), made.batch(_MANY, part=0.1)
        self._spare = made.batch(1)
        self._real: Batch = taken(data, slice(size))
        self._device = first_of(data).device
        self._drew = False
        self._shown = [0]

    def oracle(self) -> None:
        """One example at a time, by autograd; before any hook is on the model.

        Raises:
            ModelError: model or loss fail, a parameter is not reached, or the state changes.
        """
        try:
            size = rows_of(self._real)
            self._shown = sorted({0, size // 2, size - 1})
            self._alone = [self._alone_of(self._made, i, _MADE_UP) for i in range(_MANY)]
            self._sum = self._plain(self._made, _MADE_UP, frozen=False)
            self._state.refuse_changes()
            self._alone_real = [self._alone_of(self._real, i, _REAL) for i in self._shown]
            self._oracle.refuse_unreached()
        finally:
            self._state.restore()

    def compare(self, engine: PerExample) -> None:
        """The engine's vectors against the oracle's.

        Raises:
            ModelError: examples mix, or an example's vector is not its gradient.
        """
        hooked = isinstance(engine, OpacusGradients)
        self._why, self._next = _RIGHT["opacus" if hooked else "graph"]
        try:
            self._content(engine, 2, (0,))
            self._content(engine, _MANY, (2, 4))
            self._vectors_alone(engine)
            if hooked:
                self._refuse_uses_beside_layers()
            self._refuse_memory(engine)
            self._state.refuse_changes()
            self._first_real(engine)
            self._state.refuse_changes()
        finally:
            self._state.restore()
            for p in self._oracle.model.parameters():
                p.grad = None

    def _content(self, engine: PerExample, count: int, kept: tuple[int, ...]) -> None:
        """What the others hold may not matter, under real draws; and the vectors add up."""
        one = _rows(self._made, slice(count))
        vectors = self._pass(engine, one, _MADE_UP)
        before = {i: vectors.vector(i) for i in kept}
        total = self._summed(vectors, torch.ones_like(vectors.norms))
        scale = float(vectors.norms.double().sum())
        for i in kept:
            other = _rows(self._other, slice(count))
            for a, b in zip(leaves(other), leaves(one), strict=True):
                a[i] = b[i]
            after = self._pass(engine, other, _MADE_UP).vector(i)
            if found := self._oracle.differing(before[i], after, alike=True):
                raise ModelError(
                    f"parameter {found[0]}: one example's gradient changes with another example; "
                    "remove what works across the batch (statistics, attention, contrastive terms)"
                )
        if count == _MANY:
            self._refuse_wrong_sum(self._sum, total, scale)

    def _vectors_alone(self, engine: PerExample) -> None:
        """In batches of 1, 2 and 5, each vector is the gradient of its example alone."""
        for count in (1, 2, _MANY):
            vectors = self._pass(engine, _rows(self._made, slice(count)), _MADE_UP, frozen=True)
            for i in range(count):
                self._refuse_not_alone(self._alone[i], vectors.vector(i), count)
            self._refuse_wrong_norms(vectors, range(count))
        slots = torch.tensor([0, 0, 1, 2, 2], device=self._device)
        weights = torch.full((_MANY,), 0.5, device=self._device)
        shared = self._pass(engine, self._made, _MADE_UP, frozen=True, slots=(slots, weights))
        self._refuse_wrong_norms(shared, range(3))

    def _refuse_uses_beside_layers(self) -> None:
        """A parameter used beside its layer, however little: no example's vector has that part."""
        model, batch = self._oracle.model, _rows(self._made, slice(2))
        capture = Capture(layers_of(model))
        try:
            with same_draws(self._device):
                total, uses = capture.losses(model, self._loss, *batch)
        finally:
            capture.remove()
        beside = leaves_beside(total, uses)
        for name, p in self._oracle.named.items():
            if p in beside:
                raise ModelError(
                    f"parameter {name}: is used outside its own layer's forward (by a penalty in "
                    "the loss, a function or another module), so its per-example gradients do not "
                    "add up to autograd's gradient; pass gradients='graph', or use it through its "
                    "layer only, and the optimizer's weight_decay for a penalty"
                )

    def _refuse_memory(self, engine: PerExample) -> None:
        """What another batch left in the layers' attributes may not matter, however little."""
        model, one, other = (
            self._oracle.model,
            *(_rows(batch, slice(2)) for batch in (self._made, self._other)),
        )
        before = memory.held(model)
        left = []
        for batch in (one, other):
            self._pass(engine, batch, _MADE_UP, frozen=True)
            left.append({key: value.clone() for key, value in memory.held(model).items()})
        try:
            if not (wrong := memory.exaggerated(*left)):
                return
            seen = []
            for kept in (left[0], wrong):
                memory.put(kept)
                vectors = self._pass(engine, one, _MADE_UP, frozen=True)
                seen.append([vectors.vector(i) for i in range(2)])
        finally:
            memory.put(before)
        for first, second in zip(*seen, strict=True):
            if found := self._oracle.differing(first, second):
                names = ", ".join(name for _, name in wrong)
                raise ModelError(
                    f"parameter {found[0]}: its gradient changes with what the model keeps of "
                    f"earlier passes ({names}), and no noise covers that; keep nothing of the "
                    "examples between passes"
                )

    def _first_real(self, engine: PerExample) -> None:
        """Once on a batch of the size and kind that steps will see, and on a part of it."""
        size = rows_of(self._real)
        for count in sorted({size // 2 + 1, size}):
            vectors = self._pass(engine, _rows(self._real, slice(count)), _REAL, frozen=True)
            for i, alone in zip(self._shown, self._alone_real, strict=True):
                if i < count:
                    self._refuse_not_alone(alone, vectors.vector(i), count)
            self._refuse_wrong_norms(vectors, [i for i in self._shown if i < count])
        finite = torch.isfinite(vectors.norms)  # the others count as zero in a step
        batch = _rows(self._real, finite) if not finite.all() else self._real
        if self._drew or batch is not self._real:
            del vectors
            if not finite.any():
                return
            vectors = self._pass(engine, batch, _REAL, frozen=not self._drew)
        self._sum_of_real(batch, vectors)

    def _sum_of_real(self, batch: Batch, vectors: Vectors) -> None:
        """The sum check: weighted vectors add up to autograd's gradient of the weighted losses.

        Some have weight 0, and in autograd's pass are another: no vector may hold any of them.
        """
        generator = torch.Generator().manual_seed(1)
        size = rows_of(batch)
        factors = (torch.rand(size, generator=generator) + 0.5).to(vectors.norms)
        changed = torch.randperm(size, generator=generator)[: size // 8 + 1]
        factors[changed.to(factors.device)] = 0.0
        total = self._summed(vectors, factors)
        scale = float((factors * vectors.norms).double().sum())
        del vectors
        other = _rows(batch, slice(size))
        for tensor, spare in zip(leaves(other), leaves(self._spare), strict=True):
            tensor[changed.to(tensor.device)] = spare[0]
        frozen = not self._drew
        if not self._oracle.differing(
            self._plain(other, _REAL, frozen=frozen, factors=factors), total, scale
        ):
            return
        self._refuse_wrong_sum(
            self._plain(batch, _REAL, frozen=frozen, factors=factors), total, scale
        )
        raise ModelError(
            f"model: in a batch of {size}, one example's gradient changes with another example; "
            "remove what works across the batch (statistics, attention, contrastive terms)"
        )

    def _pass(
        self,
        engine: PerExample,
        batch: Batch,
        of: str,
        *,
        frozen: bool = False,
        slots: tuple[torch.Tensor, torch.Tensor] | tuple[()] = (),
    ) -> Vectors:
        count = rows_of(batch)
        with (
            same_draws(self._device),
            blamed(f"per-example gradients over {count} {of}", self._oracle.model),
        ):
            if frozen:
                with FrozenDraws() as draws:
                    engine.backward(self._loss, *batch)
                self._drew = self._drew or draws.drew
            else:
                engine.backward(self._loss, *batch)
            return engine.vectors(self._oracle.params, *slots)

    def _plain(
        self, batch: Batch, of: str, *, frozen: bool, factors: torch.Tensor | None = None
    ) -> Gradient:
        with same_draws(self._device):
            if not frozen:
                return self._oracle.gradient(batch, of, factors)
            with FrozenDraws() as draws:
                gradient = self._oracle.gradient(batch, of, factors)
            self._oracle.in_half = self._oracle.in_half or draws.in_half
            return gradient

    def _alone_of(self, batch: Batch, row: int, of: str) -> Gradient:
        return self._plain(_rows(batch, slice(row, row + 1)), of, frozen=True)

    def _summed(self, vectors: Vectors, factors: torch.Tensor) -> Gradient:
        params = self._oracle.params
        sums = [p.detach().new_zeros(p.shape, dtype=torch.float64) for p in params]
        vectors.add_to(sums, factors)
        return [total.flatten() for total in sums]

    def _refuse_wrong_sum(self, reference: Gradient, total: Gradient, scale: float) -> None:
        if found := self._oracle.differing(reference, total, scale):
            raise ModelError(
                f"parameter {found[0]}: its per-example gradients do not add up to autograd's "
                f"gradient (off by {100 * found[1]:.2g} %): {self._why}; {self._next}, or freeze "
                "it by requires_grad_(False)"
            )

    def _refuse_wrong_norms(self, vectors: Vectors, which: Sequence[int]) -> None:
        """The norm that a vector is clipped by is the vector's, or a little above it.

        Where it is not to a hair, so it must be in each parameter.
        """
        finite = vectors.norms[torch.isfinite(vectors.norms)]
        rounding = _ROUNDING * float(finite.max()) if finite.numel() else 0.0
        for i in which:
            told, vector = float(vectors.norms[i]), vectors.vector(i)
            true = length(vector)
            if not math.isfinite(told) or abs(told - true) <= _HAIR * true:
                continue
            own = [float(part.norm()) for part in vector]
            names = zip(self._oracle.named, vectors.norms_told(i), own, strict=True)
            for name, a, b in [*names, ("of all", told, true)]:
                if not a >= b * (1 - _NORM) - _HAIR * true:
                    lets = "let too much through"
                elif a > b * (1 + _TOO_LONG) + rounding:
                    lets = "take too much away"
                else:
                    continue
                raise ModelError(
                    f"parameter {name}: a norm is {a / max(b, 1e-300):.3g} of its vector's, so "
                    f"the clip would {lets}: a rule that it goes by is wrong; {self._next}"
                )

    def _refuse_not_alone(self, alone: Gradient, given: Gradient, count: int) -> None:
        if found := self._oracle.differing(alone, given):
            raise ModelError(
                f"parameter {found[0]}: in a batch of {count}, an example's gradient is not the "
                f"one it has alone (off by {100 * found[1]:.2g} %): it may depend neither on how "
                "many others there are (len(x), a mean over the batch), nor on their order, nor "
                "on what the model remembers of earlier passes; where none is so, "
                f"{self._why}, and {self._next}"
            )


def _rows(batch: Batch, rows: slice | torch.Tensor) -> Batch:
    rows_alone: Batch = mapped(lambda tensor: tensor[rows].clone(), batch)
    return rows_alone
