"""Signal to noise of the first steps, and what a step takes here: on made-up rows alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import choose, per_example_gradients
from dpsgd_torch.gradients.model_checks import trainable_parameters

_PASS = 64  # rows at once
_LEAST_SECONDS = 0.2  # that are measured


@dataclass(frozen=True, kw_only=True)
class FirstSteps:
    """What per-example gradients of the model as it is say, in units of the clip norm.

    Attributes:
        signal: norm of the mean clipped gradient, without what is chance among these rows.
        clipped: share of rows whose gradient is longer than the clip norm.
        example_seconds, example_bytes: of a private step on this machine, one thread or as many as
            torch has; what a pass holds for one row.
        rows: how many were looked at.
    """

    parameters: int
    signal: float
    clipped: float
    example_seconds: float
    example_bytes: int
    rows: int

    def signal_to_noise(self, noise_multiplier: float, batch_size: int, steps: int = 1) -> float:
        """‖mean clipped gradient‖ ÷ norm of the noise in the mean, C √P σ / B, over ``steps``.

        >>> first = FirstSteps(parameters=100, signal=0.5, clipped=1.0, example_seconds=1e-4,
        ...                    example_bytes=4, rows=9)
        >>> first.signal_to_noise(2.0, 40), first.signal_to_noise(2.0, 40, steps=16)
        (1.0, 4.0)
        """
        noise = noise_multiplier * math.sqrt(self.parameters) / batch_size
        return self.signal * math.sqrt(steps) / noise


def first_steps(
    model: nn.Module, rows: tuple[torch.Tensor, torch.Tensor], clip_norm: float = 1.0
) -> FirstSteps:
    """Cross-entropy gradients of a model in training mode on made-up rows, two or more.

    Passes are those of a private step, after the rehearsal that a run begins with.

    Raises:
        ModelError: the model does not take such rows, or its examples cannot be told apart.
    """
    loss = per_example(nn.CrossEntropyLoss())
    params = trainable_parameters(model)
    held: list[int] = []

    def sized(example: Callable[[], int]) -> int:
        held.append(example())
        return _PASS

    method = choose("auto", model, loss, rows, sized)
    total = [p.new_zeros(p.shape, dtype=torch.float64) for p in params]
    norms: list[torch.Tensor] = []
    passes = list(zip(rows[0].split(_PASS), rows[1].split(_PASS), strict=True))
    with per_example_gradients(model, method.kind, method.layouts) as engine:

        def one(inputs: torch.Tensor, targets: torch.Tensor, into: list[torch.Tensor]) -> None:
            engine.backward(loss, inputs, targets)
            vectors = engine.vectors(params)
            found = vectors.norms.double()
            factors = (clip_norm / found.clamp_min(1e-12)).clamp(max=1.0)
            vectors.add_to(into, factors.where(torch.isfinite(found), 0.0))
            norms.append(found)

        for inputs, targets in passes:
            one(inputs, targets, total)
        lengths = torch.cat(norms)
        seconds = _seconds(lambda: one(*passes[0], [torch.zeros_like(t) for t in total]))
    kept = lengths.clamp(max=clip_norm).where(torch.isfinite(lengths), 0.0)
    count = len(lengths)
    whole = sum(float(t.square().sum()) for t in total)
    mean = max(0.0, whole - float(kept.square().sum())) / (count * (count - 1))
    return FirstSteps(
        parameters=sum(p.numel() for p in params),
        signal=math.sqrt(mean) / clip_norm,
        clipped=float((lengths > clip_norm).double().mean()),
        example_seconds=seconds / len(passes[0][0]),
        example_bytes=max(held, default=0),
        rows=count,
    )


def _seconds(pass_of: Callable[[], None]) -> float:
    """The median of a few passes: a step adds noise and an update to what its passes take."""
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < _LEAST_SECONDS and len(taken) < 100):
        started = time.perf_counter()
        pass_of()
        taken.append(time.perf_counter() - started)
    return median(taken)
