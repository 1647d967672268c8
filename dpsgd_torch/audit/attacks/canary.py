"""Canaries for attacks on a final model: records that an attacker makes up, or picks.

* **pixels** (worst case): each has a few features of its own, at which every record of the data is
  the same, and the label that comes least often: its gradient lies where no other record's does.
* **blank**: all features are 0, the label is that which comes least often.
* **mislabeled**: a record of the data, doubled, with the next label.
* **records**: records of the data themselves, for likelihood-ratio attacks on real members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dpsgd_torch.audit.attacks.training import Rows
from dpsgd_torch.errors import ConfigError

KINDS = ("pixels", "blank", "mislabeled", "records")


@dataclass(frozen=True)
class Made:
    """Canaries, what a model is asked beside each, and the data that all runs have."""

    rows: Rows
    beside: torch.Tensor
    """(canaries, …) the same without what makes a canary: what the model says of it is taken off"""
    base: Rows


def make_canaries(data: Rows, kind: str, count: int, generator: np.random.Generator) -> Made:
    """So many canaries of a kind.

    Raises:
        ConfigError: there are not so many of it.
    """
    inputs, targets = data
    if kind == "records":
        _most(kind, count, len(inputs) - 1)
        chosen = np.sort(generator.choice(len(inputs), count, replace=False))
        rest = np.setdiff1d(np.arange(len(inputs)), chosen)
        rows = inputs[chosen], targets[chosen]
        blank = torch.zeros_like(inputs[:1]).expand_as(rows[0])
        return Made(rows, blank, (inputs[rest], targets[rest]))
    if kind == "mislabeled":
        _most(kind, count, len(inputs))
        chosen = np.sort(generator.choice(len(inputs), count, replace=False))
        rows = inputs[chosen].clone(), _other(targets, targets[chosen])
        return Made(rows, torch.zeros_like(rows[0]), data)
    if kind == "blank":
        _most(kind, count, 1)
        rows = torch.zeros_like(inputs[:1]), _rarest(targets, 1)
        return Made(rows, inputs.mean(0, keepdim=True).to(inputs.dtype), data)
    return _pixels(data, count, generator)


def _pixels(data: Rows, count: int, generator: np.random.Generator) -> Made:
    inputs, targets = data
    flat = inputs.reshape(len(inputs), -1)
    if not flat.is_floating_point():
        raise ConfigError("canary = pixels: features must be floating-point; choose another canary")
    free = (flat == flat[:1]).all(0).nonzero().ravel().numpy()
    if len(free) < count:
        raise ConfigError(
            f"canaries = {count}: {len(free)} features are the same in all records, and each needs "
            "one of its own; ask for fewer, or for --canary blank or mislabeled"
        )
    own = np.array_split(
        generator.permutation(free)[: max(count, len(free) // count * count)], count
    )
    high = float(flat.abs().max()) or 1.0
    beside = flat[:1].repeat(count, 1) * 0
    made = beside.clone()
    for row, places in enumerate(own):
        made[row, torch.from_numpy(np.asarray(places))] = high
    shape = (count, *inputs.shape[1:])
    return Made((made.reshape(shape), _rarest(targets, count)), beside.reshape(shape), data)


def _rarest(targets: torch.Tensor, count: int) -> torch.Tensor:
    """The label that comes least often, or for numbers one as far out as any."""
    if targets.is_floating_point():
        return (targets.max(0, keepdim=True).values).repeat(count, *[1] * (targets.ndim - 1))
    values, times = targets.unique(return_counts=True)
    return values[times.argmin()].repeat(count)


def _other(targets: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Another label: the next one, or the number mirrored in the mean."""
    if targets.is_floating_point():
        return 2 * targets.mean(0) - of
    values = targets.unique()
    return values[(torch.searchsorted(values, of) + 1) % len(values)]


def _most(kind: str, count: int, most: int) -> None:
    if count > most:
        raise ConfigError(f"canaries = {count}: there are {most} of kind {kind}; ask for fewer")
