"""One optimizer step over one logical batch: the private one, and its twin without privacy."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.data.base import Takes
from dpsgd_torch.data.trees import Forward, call, first
from dpsgd_torch.data.units import Indices
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.vectors import PerExample
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.sampling import physical_batches
from dpsgd_torch.training.world import ALONE, World


@dataclass(frozen=True)
class Draw:
    """What one step drew: the records, their slots, and the stream for the noise.

    ``weights`` are those of the records within their slot; None where each has one of its own.
    """

    batch: Indices
    slots: Indices
    noise: np.random.Generator
    weights: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class StepRecord:
    """What ε does not cover: the sum of training losses, how many, and norms before the clip."""

    loss_sum: float
    examples: int
    norms: torch.Tensor


class PrivateStep:
    """Clipped gradients, physical batch by physical batch, then one release.

    Memory holds what belongs to one physical batch, whatever the logical one is. ``before_release``
    is called once all of them have gone through the model, and ``around`` is about their passes.
    """

    def __init__(
        self,
        gradients: PerExample,
        loss: Loss,
        optimizer: PrivateOptimizer,
        *,
        physical_batch_size: int,
        before_release: Callable[[], None] = lambda: None,
        around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.gradients, self.loss, self.optimizer = gradients, loss, optimizer
        self.physical_batch_size, self.before_release = physical_batch_size, before_release
        self._around = around
        self.rows, self.is_last = np.zeros(0, np.int64), False  # of the piece at hand

    def __call__(self, data: Takes, plan: StepPlan, draw: Draw) -> StepRecord:
        self.optimizer.begin(plan, draw.noise)
        with self._around():
            loss_sum, norms = self._passes(data, draw)
        self.before_release()
        self.optimizer.release()
        return StepRecord(loss_sum, draw.batch.size, torch.cat(norms))

    def _passes(self, data: Takes, draw: Draw) -> tuple[float, list[torch.Tensor]]:
        loss_sum, norms = 0.0, [torch.zeros(0)]
        self.rows, self.is_last, left = draw.batch[:0], False, draw.batch.size
        for piece in physical_batches(draw.slots, self.physical_batch_size):
            left -= piece.size
            self.rows, self.is_last = draw.batch[piece], not left
            inputs, targets = data.take(self.rows)
            loss_sum += self.gradients.backward(self.loss, inputs, targets)
            shared = None
            if draw.weights is not None:
                local = np.unique(draw.slots[piece], return_inverse=True)[1]
                shared = (
                    torch.from_numpy(part).to(first(inputs).device)
                    for part in (local, draw.weights[piece])
                )
            vectors = self.gradients.vectors(self.optimizer.params, *(shared or ()))
            norms.append(self.optimizer.accumulate(vectors).cpu())
        return loss_sum, norms


class PlainStep:
    """The same batches and weights, over the declared number of slots: no clip and no noise."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        slots: int,
        physical_batch_size: int,
        world: World = ALONE,
        forward: Forward = call,
        loss_scale: float = 1.0,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.forward, self.loss_scale = forward, loss_scale
        self.slots, self.physical_batch_size, self.world = slots, physical_batch_size, world

    def __call__(self, data: Takes, plan: StepPlan, draw: Draw) -> StepRecord:
        loss_sum = 0.0
        self.optimizer.zero_grad(set_to_none=False)
        for piece in physical_batches(draw.slots, self.physical_batch_size):
            weights = None if draw.weights is None else torch.from_numpy(draw.weights[piece])
            inputs, targets = data.take(draw.batch[piece])
            losses = self.loss(self.forward(self.model, inputs), targets)
            loss_sum += backward(losses, weights, self.loss_scale)
        if not self.world.is_alone:
            self._add_up()
        finite = True
        for p in self.model.parameters():
            if p.requires_grad and p.grad is not None:
                p.grad /= self.slots * self.loss_scale
                finite = finite and (self.loss_scale == 1 or bool(p.grad.isfinite().all()))
        if finite:  # else what overflowed in float16 is left out, as a GradScaler does
            self.optimizer.step()
        return StepRecord(loss_sum, draw.batch.size, torch.zeros(0))

    def _add_up(self) -> None:
        """Every rank's gradients, summed; one that no rank has stays None."""
        params = [p for p in self.model.parameters() if p.requires_grad]
        reached = self.world.exchange("the sum of a step", [p.grad is not None for p in params])
        params = [p for p, *has in zip(params, *reached, strict=True) if any(has)]
        mine = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        for p, total in zip(params, self.world.summed(mine), strict=True):
            p.grad = total.to(p.dtype)
        self.world.hand_round([p.grad for p in params if p.grad is not None])


def backward(losses: torch.Tensor, weights: torch.Tensor | None = None, scale: float = 1) -> float:
    """Sum of the losses; the gradient of their weighted sum is left where the model keeps it."""
    total = losses.sum() if weights is None else losses @ weights.to(losses)
    total = total if scale == 1 else total * scale
    with warnings.catch_warnings():  # the input needs no gradient, and Opacus does not need it to
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        total.backward()
    return float(losses.detach().sum())
