"""Stand-ins for private images, made up, and what a privately trained head reaches on them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.nn import functional as F

from accountant import Event, calibrate_noise, dpsgd_event, dpsgd_steps
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.tasks.image_features import linear_head
from dpsgd_torch.tasks.task import Pair, accuracy

_FINE = 32  # the side that digits of another pen are drawn on


def other_pen(count: int, side: int = 8, seed: int = 11) -> Pair:
    """Made-up digits of a soft pen: other slants, widths and bends than those that features know.

    >>> images, digits = other_pen(3)
    >>> images.shape, digits.shape
    (torch.Size([3, 1, 8, 8]), torch.Size([3]))
    """
    images, digits = made_up_digits(count, _FINE, seed)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(count, 5, generator=generator)
    wide = 0.66 * torch.exp(0.15 * draw[:, 0] + 0.1)
    tall, slant, turn = 0.68 + 0.05 * draw[:, 1], 0.35 * draw[:, 2], 0.15 * draw[:, 3]
    none = torch.zeros(count)
    rows = torch.stack([wide, slant * tall, none, turn * wide, tall, none], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    bends = 0.06 * torch.randn(count, 2, 4, 4, generator=generator)
    grid = grid + F.interpolate(bends, _FINE, mode="bicubic", align_corners=True).permute(
        0, 2, 3, 1
    )
    moved = F.grid_sample(images, grid, align_corners=False).clamp(0, 1)
    ink = torch.exp(0.3 * draw[:, 4])[:, None, None, None]
    return F.adaptive_avg_pool2d(moved, side) ** ink, digits


def settings(pairs: list[str]) -> dict[str, Any]:
    """``name=value`` in words → by name, a number where it is one."""
    return {name: literal(value) for name, value in (each.split("=", 1) for each in pairs)}


def literal(value: str) -> Any:
    """A number where it is one, else the word itself."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def noise_for(config: RunConfig, n: int, epsilon: float) -> float:
    """The noise multiplier that ε allows the run on n records."""
    each = {"dataset_size": n, "batch_size": config.batch_size}
    steps = dpsgd_steps(**each, epochs=config.epochs)

    def events(noise: float) -> list[tuple[Event, int]]:
        return [(dpsgd_event(**each, noise_multiplier=noise), steps)]

    return calibrate_noise(epsilon, config.delta, events)


def reached(
    train: Pair,
    test: Pair,
    config: RunConfig,
    *,
    noise: float,
    seed: int,
    share: float = 1,
    begun: torch.Tensor | None = None,
) -> float:
    """Accuracy on ``test`` after the run of ``config`` on ``train``.

    Where ``train`` is a ``share`` of the records, batch and noise are scaled alike, so that the
    noise in the mean gradient and the passes are those of the whole.
    """
    batch = round(config.batch_size * share)
    steps = dpsgd_steps(dataset_size=len(train[1]), batch_size=batch, epochs=config.epochs)
    trainer = Trainer(
        linear_head(train[0].shape[1], 10, begun),
        torch.nn.CrossEntropyLoss(),
        train,
        privacy=Privacy(
            noise_multiplier=noise * share, delta=config.delta, clip_norm=config.clip_norm
        ),
        batch_size=batch,
        epochs=config.epochs,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=config.learning_rate),
        rate_schedule=config.rates(steps),
        seed=seed,
    )
    trainer.fit()
    with torch.no_grad():
        return float(accuracy(trainer.model(test[0]), test[1]).mean())
