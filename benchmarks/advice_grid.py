"""Private trainings for `advice.py`: of a linear head at many learning rates at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from advice_cases import Case

from accountant import calibrate_noise, dpsgd_event
from accountant.pld.accountant import PldAccountant

DELTA = 1e-5
EPSILONS = (0.5, 1.0, 3.0, 8.0)
STEPS = (20, 60, 180)
RATES = tuple(2.0**i for i in range(-1, 11))
_LARGEST = 400_000  # values of scores held at once


@cache
def noise(n: int, batch: int, steps: int, epsilon: float) -> float:
    """To a thousandth, which no accuracy feels."""

    def events(sigma: float) -> list[tuple[Any, int]]:
        step = dpsgd_event(dataset_size=n, batch_size=batch, noise_multiplier=sigma)
        return [(step, steps)]

    return calibrate_noise(epsilon, DELTA, events, accountant=PldAccountant, tolerance=1e-3)


def cells(
    case: Case, share: float = 0.25, steps: Iterable[int] = STEPS
) -> Iterator[dict[str, Any]]:
    """Accuracy at every learning rate, by n, ε and steps; one cell a size is without noise."""
    for n in case.sizes:
        batch = max(1, round(share * n))
        settings = [(count, e) for count in steps for e in EPSILONS] + [(max(STEPS), None)]
        for count, epsilon in settings:
            sigma = 0.0 if epsilon is None else noise(n, batch, count, epsilon)
            found = heads(case, n, batch, count, sigma, RATES)
            yield cell(case.name, case, n, batch, count, epsilon, sigma, RATES, found,
                       parameters=case.classes * (case.features + 1))  # fmt: skip


def cell(name: str, case: Case, n: int, batch: int, steps: int, epsilon: float | None,
         sigma: float, rates: Sequence[float], found: Sequence[float], *,
         parameters: int) -> dict[str, Any]:  # fmt: skip
    """What was measured of one setting, at several learning rates."""
    most = float(case.test[1].bincount().max()) / len(case.test[1])
    return {"case": name, "n": n, "batch": batch, "steps": steps, "epsilon": epsilon,
            "noise": sigma, "parameters": parameters, "chance": most, "rates": list(rates),
            "accuracy": list(found)}  # fmt: skip


@torch.no_grad()
def heads(
    case: Case, n: int, batch: int, steps: int, sigma: float, rates: Sequence[float], seed: int = 0
) -> list[float]:
    """Test accuracy of heads from zero that differ in learning rate: DP-SGD with clip norm 1.

    Poisson batches, sums divided by the expected size, noise σ, rates falling linearly to 0. All
    heads meet the same batches and noise. A test holds a sum to the engine's.
    """
    drawn = torch.Generator().manual_seed(seed)
    weights = torch.zeros(len(rates), case.classes, case.features + 1)
    falling = torch.tensor(rates)[:, None, None] / batch
    inputs = _with_one(case.train[0][:n])
    targets = torch.nn.functional.one_hot(case.train[1][:n], case.classes).float()
    lengths = inputs.norm(dim=1)
    for step in range(steps):
        chosen = (torch.rand(n, generator=drawn) < batch / n).nonzero()[:, 0]
        total = torch.zeros_like(weights)
        for rows in chosen.split(max(1, _LARGEST // (len(rates) * case.classes))):
            total += clipped_sums(weights, inputs[rows], targets[rows], lengths[rows])
        total += sigma * torch.randn(weights.shape[1:], generator=drawn)
        weights -= falling * (1 - step / steps) * total
    scores = _with_one(case.test[0]) @ weights.flatten(0, 1).T
    best = scores.view(len(scores), len(rates), -1).argmax(2)
    return (best == case.test[1][:, None]).float().mean(0).tolist()


def clipped_sums(
    weights: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """(heads, classes, features + 1): Σ of gradients (p − y) ⊗ z, each clipped to norm 1."""
    scores = (inputs @ weights.flatten(0, 1).T).view(len(inputs), *weights.shape[:2])
    errors = scores.softmax(2) - targets[:, None]
    norms = errors.norm(dim=2, keepdim=True) * lengths[:, None, None]
    errors *= norms.reciprocal().clamp(max=1)
    return (errors.flatten(1).T @ inputs).view_as(weights)


def _with_one(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
