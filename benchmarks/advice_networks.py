"""Networks of one hidden layer for `advice.py`: on made-up rows, at many learning rates at once.

Small enough that a whole grid takes seconds: each example's gradient is two outer products, and
its norm follows from their factors' norms. Convolutions were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from advice_cases import Case, gesture_rows, image_rows, taught_rows
from advice_grid import cell, noise
from torch.nn.functional import one_hot

RATES = tuple(2.0**i for i in range(-4, 7))
STEPS = (20, 60, 180)
SIZES = (500, 4000)
EPSILONS = (1.0, 8.0)
_SHARE = 0.25


def fitted() -> Iterator[dict[str, Any]]:
    """Cells that the law of networks is fitted to."""
    digits = image_rows(max(SIZES))
    yield from _cells("64 hidden on digits 8×8", digits, 64)
    yield from _cells("256 hidden on digits 8×8", digits, 256)
    yield from _cells("64 hidden on leaves", taught_rows(max(SIZES)), 64)


def held_out() -> Iterator[dict[str, Any]]:
    """A network on rows of another kind."""
    yield from _cells("32 hidden on gestures", gesture_rows(max(SIZES)), 32)


def _cells(name: str, case: Case, hidden: int) -> Iterator[dict[str, Any]]:
    parameters = hidden * (case.features + 1) + case.classes * (hidden + 1)
    for n in SIZES:
        batch = round(_SHARE * n)
        settings = [(count, e) for count in STEPS for e in EPSILONS] + [(max(STEPS), None)]
        for steps, epsilon in settings:
            sigma = 0.0 if epsilon is None else noise(n, batch, steps, epsilon)
            found = networks(case, n, batch, steps, sigma, hidden)
            yield cell(name, case, n, batch, steps, epsilon, sigma, RATES, found,
                       parameters=parameters)  # fmt: skip


@torch.no_grad()
def networks(
    case: Case,
    n: int,
    batch: int,
    steps: int,
    sigma: float,
    hidden: int,
    rates: Sequence[float] = RATES,
) -> list[float]:
    """Test accuracy of networks x → W tanh(V x) that differ in learning rate; clip norm 1.

    As `heads` of `advice_grid`: Poisson batches and noise are the same for all of them.
    """
    drawn = torch.Generator().manual_seed(0)
    first = _drawn(hidden, case.features, drawn).repeat(len(rates), 1, 1)
    second = _drawn(case.classes, hidden, drawn).repeat(len(rates), 1, 1)
    falling = torch.tensor(rates)[:, None, None] / batch
    inputs, targets = with_one(case.train[0][:n]), one_hot(case.train[1][:n], case.classes).float()
    for step in range(steps):
        chosen = (torch.rand(n, generator=drawn) < batch / n).nonzero()[:, 0]
        sums = clipped(first, second, inputs[chosen], targets[chosen])
        for weights, total in zip((first, second), sums, strict=True):
            added = sigma * torch.randn(weights.shape[1:], generator=drawn)
            weights -= falling * (1 - step / steps) * (total + added)
    scores = with_one(torch.tanh(with_one(case.test[0]) @ first.mT)) @ second.mT
    return (scores.argmax(2) == case.test[1]).float().mean(1).tolist()


def clipped(
    first: torch.Tensor, second: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ of gradients of (networks, …) weights, each example's clipped to norm 1 over both."""
    hidden = torch.tanh(inputs @ first.mT)
    errors = (with_one(hidden) @ second.mT).softmax(2) - targets
    back = (errors @ second[..., :-1]) * (1 - hidden.square())
    squares = back.square().sum(2) * inputs.square().sum(1)
    squares += errors.square().sum(2) * (hidden.square().sum(2) + 1)
    factors = squares.rsqrt().clamp(max=1.0)[..., None]
    return (back * factors).mT @ inputs, (errors * factors).mT @ with_one(hidden)


def with_one(rows: torch.Tensor) -> torch.Tensor:
    """A column of ones beside them, for the bias."""
    return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], dim=-1)


def _drawn(outputs: int, inputs: int, generator: torch.Generator) -> torch.Tensor:
    """As torch draws a linear layer's weight; the bias, last, from 0."""
    weights = (2 * torch.rand(outputs, inputs, generator=generator) - 1) / math.sqrt(inputs)
    return torch.cat([weights, torch.zeros(outputs, 1)], dim=1)
