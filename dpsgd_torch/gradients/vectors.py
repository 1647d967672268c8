"""The vectors that are clipped, one a slot, whether or not they are ever written out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from dpsgd_torch.data.trees import Tree
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.losses import Loss

MARGIN = 1e-5  # of the clip norm, where only norms are rounded to float32
_AT_ONCE = 1 << 17  # values widened at once, so that they stay in the cache


class Summed(Protocol):
    """What gives Σ factor × vector, one vector for each slot of a physical batch."""

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        """Add Σ factor × vector to ``sums``, one float64 tensor a parameter.

        Factor 0 leaves a vector out. Returns the L2 norm of what was rounded away beyond what
        float64 rounds, which is at most ``within``.
        """

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        """The same sums by themselves, and what was rounded away; the vectors are used up.

        A sum is float32 where that holds all there is of it: within the error allowed.
        """

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        """``totals`` a parameter at a time, and the square of what was rounded away in each.

        Args:
            keep: the vectors are not used up.
        """


class Vectors(Summed, Protocol):
    """One vector over all parameters for each slot of a physical batch.

    A slot is one example, one microbatch, or the rows of one person; its vector is the weighted
    sum of its examples' gradients. An example whose gradient is not finite counts as zero.
    """

    @property
    def norms(self) -> torch.Tensor:
        """(slots,) L2 norms, too small by rounding only; infinite or NaN where one overflows."""

    @property
    def margin(self) -> float:
        """The part of the clip norm that is kept back, for norms and sums that are rounded."""

    def part(self, places: Sequence[int]) -> Vectors:
        """The same vectors over some of the parameters alone, by their places."""

    def norm(self, slot: int) -> float:
        """One slot's norm, computed again in float64."""

    def vector(self, slot: int) -> list[torch.Tensor]:
        """One slot's vector written out in float64, a flat tensor a parameter."""

    def written(self, slot: int) -> Iterator[torch.Tensor]:
        """The same, a parameter at a time."""

    def norms_told(self, slot: int) -> list[float]:
        """What ``norms`` took one slot's norm in each parameter to be."""

    def nbytes(self) -> int:
        """Bytes that are held of all slots."""


class PerExample(Protocol):
    """A model whose backward pass keeps what belongs to each example apart."""

    def backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """Run one pass over a physical batch; returns the sum of its losses."""

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Vectors:
        """What that pass left, taken out of the model.

        Args:
            params: the order of the parameters.
            slots: the slot of each example, numbered from 0; None where each is its own.
            weights: by which each example's gradient is multiplied; None for 1.

        Raises:
            ModelError: the loss does not reach one of the parameters.
        """

    def cleanup(self) -> None:
        """Take the hooks off again."""


class Stored:
    """Vectors held as per-example gradients, ``grad_sample`` of each parameter."""

    margin = MARGIN

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> None:
        grads = taken(params)
        norms = squares(grads).sqrt()
        if slots is not None:
            finite = torch.isfinite(norms)
            if not finite.all():
                grads, slots = [g[finite] for g in grads], slots[finite]
                weights = None if weights is None else weights[finite]
            count = int(slots.max()) + 1 if slots.numel() else 0
            grads = [
                g.new_zeros(count, g.shape[1]).index_add_(
                    0, slots, g if weights is None else g * weights[:, None]
                )
                for g in grads
            ]
            norms = squares(grads).sqrt()
        self._params, self._grads, self.norms = params, grads, norms

    def part(self, places: Sequence[int]) -> Stored:
        part = object.__new__(Stored)
        part._params = [self._params[place] for place in places]
        part._grads = [self._grads[place] for place in places]
        part.norms = squares(part._grads).sqrt()
        return part

    def add_to(self, sums: list[torch.Tensor], factors: torch.Tensor, within: float = 0.0) -> float:
        add_rows(sums, self._grads, factors)
        return 0.0

    def totals(self, factors: torch.Tensor, within: float) -> tuple[list[torch.Tensor], float]:
        return (sums := zeros(self._params)), self.add_to(sums, factors)

    def one_by_one(
        self, factors: torch.Tensor, within: float, *, keep: bool = False
    ) -> Iterator[tuple[torch.Tensor, float]]:
        for i, p in enumerate(self._params):
            total = zeros([p])
            add_rows(total, [self._grads[i]], factors)
            if not keep:
                self._grads[i] = self._grads[i][:, :0]
            yield total[0], 0.0

    def norm(self, slot: int) -> float:
        return length(self.written(slot))

    def vector(self, slot: int) -> list[torch.Tensor]:
        return list(self.written(slot))

    def written(self, slot: int) -> Iterator[torch.Tensor]:
        return (g[slot].double() for g in self._grads)

    def norms_told(self, slot: int) -> list[float]:
        return [float(g[slot].square().sum().sqrt()) for g in self._grads]

    def nbytes(self) -> int:
        return sum(g.nbytes for g in self._grads)


def zeros(params: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """Sums of nothing, float64."""
    return [p.new_zeros(p.shape, dtype=torch.float64) for p in params]


def taken(params: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """(examples, values) ``grad_sample`` of each parameter, which it holds no longer."""
    held: Sequence[Any] = params
    grads = [p.grad_sample.unsqueeze(-1).flatten(1) for p in held]  # also of scalars
    for p in held:
        p.grad_sample = None
    return grads


def squares(grads: list[torch.Tensor]) -> torch.Tensor:
    """(rows,) squared norms over all of (rows, values).

    Squares are summed in pairs; torch's norm adds them one by one on the CPU, and in float32 loses
    4e-4 of a vector of ten million ones.
    """
    return torch.stack([g.square().sum(1) for g in grads]).sum(0)


def add_rows(
    sums: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], factors: torch.Tensor
) -> None:
    """Add Σ factor × row in float64; factor 0 leaves a row out, whatever it holds."""
    kept = factors > 0
    every, factors = bool(kept.all()), factors[kept].double()
    width = max(1, _AT_ONCE // max(1, len(kept)))
    for total, g in zip(sums, grads, strict=True):
        flat = total.view(-1)
        for start in range(0, g.shape[1], width):
            block = g[:, start : start + width]
            flat[start : start + width] += factors @ (block if every else block[kept]).double()


def length(vector: Iterable[torch.Tensor]) -> float:
    """L2 norm over all parameters together, of one flat tensor each."""
    return math.sqrt(sum(float(part @ part) for part in vector))


def unreached(name: str) -> ModelError:
    """What to say of a parameter without a gradient."""
    return ModelError(
        f"parameter {name}: the loss does not reach it, so it has no gradient; "
        "use it in forward or set requires_grad_(False)"
    )
