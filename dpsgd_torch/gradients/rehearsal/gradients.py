"""Every example is an island, and its vector is its gradient: shown before anything is charged.

Autograd on one example at a time, without hooks, is the oracle. What shows only on some data, or
in batches of some sizes only, can pass: it is a net, not a proof.
"""

from __future__ import annotations

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.tensors import give_back
from dpsgd_torch.data.trees import Forward, call, first
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import Capture, leaves_beside
from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.rehearsal import memory
from dpsgd_torch.gradients.rehearsal.draws import same_draws
from dpsgd_torch.gradients.rehearsal.footprint import saved_per_example
from dpsgd_torch.gradients.rehearsal.oracle import Gradient
from dpsgd_torch.gradients.rehearsal.passes import RIGHT, Passes, rows
from dpsgd_torch.gradients.rehearsal.real import try_real
from dpsgd_torch.gradients.rehearsal.state import State
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp
from dpsgd_torch.gradients.trained_layers import layers_of
from dpsgd_torch.gradients.vectors import PerExample

_MANY = 5  # made-up examples
_REAL = "of the first real examples"
_MADE_UP = "made-up examples of the data's shape and range"


class Rehearsal:
    """Passes over made-up and real examples, compared with the oracle's.

    No more than two gradients are held at a time, beside sums: each is compared at once.

    Args:
        model: in training mode; given back as it was.
        loss: one value per example.
        data: inputs and targets.
        forward: what outputs come from.
        scale: the loss scale of a pass through float16.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Batch,
        forward: Forward = call,
        scale: float = 1.0,
    ) -> None:
        self._model, self._loss, self._state = model, loss, State(model)
        made = MadeUp(data)
        self._made, self._other = made.batch(_MANY), made.batch(_MANY, part=0.1)
        self._spare, self._data = made.batch(1), data
        self._passes = Passes(model, loss, first(data).device, forward, scale)

    def oracle(self) -> None:
        """One example by autograd, and two; before any hook is on the model.

        Raises:
            ModelError: model or loss fail, a parameter is not reached, or the state changes.
        """
        passes = self._passes
        try:
            self._sum = passes.plain(rows(self._made, slice(2)), _MADE_UP, frozen=False)
            passes.alone(
                self._made, 0, _MADE_UP
            )  # what it leaves is another's than the pass after it
            self._state.refuse_changes()
            if passes.oracle.unreached:  # rows of some kinds only may reach it
                passes.plain(rows(self._data, slice(_MANY)), _REAL, frozen=True)
            passes.oracle.refuse_unreached()
        finally:
            self._state.restore()
            give_back()

    def islands(self, engine: PerExample) -> None:
        """The engine's vectors of two and of a few made-up examples against the oracle's.

        Raises:
            ModelError: examples mix, or an example's vector is not its gradient.
        """
        hooked = isinstance(engine, OpacusGradients)
        self._passes.why, self._passes.move = RIGHT["opacus" if hooked else "graph"]
        before = memory.held(self._model)
        try:
            self._two(engine)
            self._units(engine)
            if hooked:  # of the graph's, one alone is autograd's
                self._one(engine)
                self._refuse_uses_beside_layers()
            self._refuse_memory(engine)
            self._state.refuse_changes()
        finally:
            memory.put(before)
            self._restore()

    def bytes_of_one(self) -> int:
        """Bytes that an example takes: what its pass saves, and what the engine keeps of it."""
        try:
            passes = self._passes
            saved = saved_per_example(passes.oracle, self._made, _MADE_UP, passes.device)
            return saved + -(-self._kept // 2)
        finally:
            self._restore()

    def real(self, engine: PerExample, size: int) -> None:
        """The same for the first ``size`` real examples.

        Raises:
            ModelError: an example's vector is not its gradient.
        """
        try:
            try_real(self._passes, engine, self._data, self._spare, size)
            self._state.refuse_changes()
        finally:
            self._restore()

    def _restore(self) -> None:
        self._state.restore()
        for p in self._model.parameters():
            p.grad = None
        give_back()

    def _two(self, engine: PerExample) -> None:
        """What the other holds may not matter, under real draws; and the vectors are right."""
        passes, batch = self._passes, rows(self._made, slice(2))
        vectors = passes.engine(engine, batch, _MADE_UP)
        self._kept = vectors.nbytes()
        self._left = [_copied(memory.held(self._model))]
        total, scale = passes.summed(vectors, torch.ones_like(vectors.norms))
        wrong = passes.oracle.differing(self._sum, total, scale)
        del self._sum
        passes.refuse_influence(engine, vectors, 0, batch, rows(self._other, slice(2)), _MADE_UP)
        self._left.append(_copied(memory.held(self._model)))
        passes.refuse_wrong(wrong)
        if passes.drew:
            vectors = passes.engine(engine, batch, _MADE_UP, frozen=True)
        passes.refuse_not_alone(engine, vectors, 1, batch, rows(self._other, slice(2)), _MADE_UP)

    def _one(self, engine: PerExample) -> None:
        one = rows(self._made, slice(1))
        vectors = self._passes.engine(engine, one, _MADE_UP, frozen=True)
        self._passes.refuse_not_alone(engine, vectors, 0, one, one, _MADE_UP)

    def _units(self, engine: PerExample) -> None:
        """Examples that share a slot: its norm is that of their sum."""
        slots = torch.tensor([0, 0, 1, 2, 2], device=self._passes.device)
        weights = torch.full((_MANY,), 0.5, device=self._passes.device)
        other = rows(self._other, slice(None))
        shared = self._passes.engine(engine, other, _MADE_UP, slots=(slots, weights))
        self._left.append(_copied(memory.held(self._model)))
        self._passes.refuse_wrong_norm(shared, 0)

    def _refuse_uses_beside_layers(self) -> None:
        """A parameter used beside its layer, however little: no example's vector has that part."""
        batch = rows(self._made, slice(2))
        capture = Capture(layers_of(self._model))
        try:
            with same_draws(self._passes.device):
                total, uses = capture.losses(self._model, self._loss, *batch)
        finally:
            capture.remove()
        beside = leaves_beside(total, uses)
        for name, p in self._passes.oracle.named.items():
            if p in beside:
                raise ModelError(
                    f"parameter {name}: is used outside its own layer's forward (by a penalty in "
                    "the loss, a function or another module), so its per-example gradients do not "
                    "add up to autograd's gradient; use it through its layer only, and the "
                    "optimizer's weight_decay for a penalty"
                )

    def _refuse_memory(self, engine: PerExample) -> None:
        """What another batch left in the layers' attributes may not matter, however little."""
        left, *others = self._left
        wrong: memory.Held = {}
        for other in others:
            wrong |= memory.exaggerated(left, other)
        if not wrong:
            return
        one = rows(self._made, slice(2))
        seen: list[list[Gradient]] = []
        for kept in (left, wrong):
            memory.put(kept)
            vectors = self._passes.engine(engine, one, _MADE_UP, frozen=True)
            seen.append([self._passes.narrowed(vectors.written(i)) for i in range(2)])
        for one_way, other_way in zip(*seen, strict=True):
            if found := self._passes.oracle.differing(one_way, other_way):
                names = ", ".join(name for _, name in wrong)
                raise ModelError(
                    f"parameter {found[0]}: its gradient changes with what the model keeps of "
                    f"earlier passes ({names}), and no noise covers that; keep nothing of the "
                    "examples between passes"
                )


def _copied(held: memory.Held) -> memory.Held:
    return {key: value.clone() for key, value in held.items()}
