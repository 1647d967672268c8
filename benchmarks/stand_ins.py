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
from dpsgd_torch.features.made_up.objects import made_up_objects
from dpsgd_torch.tasks.image_features import linear_head
from dpsgd_torch.tasks.task import Pair, accuracy

_TEMPLATES = 4  # a class
_AT_ONCE = 1000
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


def bent_objects(count: int, side: int = 28, seed: int = 21, classes: int = 10) -> Pair:
    """Made-up objects, four templates a class: bent, shone through by others, of other greys.

    Another family than the things that features of `fashion-best` know.

    >>> images, objects = bent_objects(3)
    >>> images.shape, objects.shape
    (torch.Size([3, 1, 28, 28]), torch.Size([3]))
    """
    templates, _ = made_up_objects(classes * _TEMPLATES, side, seed)
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=draw)
    which = labels * _TEMPLATES + torch.randint(_TEMPLATES, (count,), generator=draw)
    parts = []
    for some in which.split(_AT_ONCE):
        others = torch.randint(len(templates), (len(some),), generator=draw)
        share = 0.35 * torch.rand(len(some), 1, 1, 1, generator=draw)
        image = (1 - share) * _bent(templates[some], draw)
        image = (image + share * _bent(templates[others], draw)).clamp(0, 1)
        power = torch.exp(0.5 * torch.randn(share.shape, generator=draw))
        image = image**power * (0.4 + 0.6 * torch.rand(share.shape, generator=draw))
        grain = torch.randn(image.shape, generator=draw) * 0.08
        image = image + (image > 0.02) * grain * torch.rand(share.shape, generator=draw)
        parts.append(image.clamp(0, 1))
    return torch.cat(parts), labels


def _bent(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Each moved, turned, stretched, and bent by a smooth field drawn for it."""
    n, side = len(images), images.shape[-1]
    knots = 0.2 * torch.randn(n, 2, 4, 4, generator=draw)
    field = F.interpolate(knots, side, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    by = torch.randn(n, 5, generator=draw)
    wide, tall, turn = torch.exp(0.15 * by[:, 0]), torch.exp(0.15 * by[:, 1]), 0.12 * by[:, 4]
    rows = torch.stack([wide, turn, 0.06 * by[:, 2], -turn, tall, 0.06 * by[:, 3]], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + field, align_corners=False).clamp(0, 1)


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
