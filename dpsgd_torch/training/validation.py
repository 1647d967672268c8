"""Validation on rows that may be private: then a noisy, clipped sum, charged before it is used."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from accountant import Event, Gaussian
from accountant.errors import check
from dpsgd_torch.data.base import Batch, rows_at_once
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.data.trees import Tree, length
from dpsgd_torch.data.unit_ids import units_of
from dpsgd_torch.data.units import UnitRows
from dpsgd_torch.gradients.losses import Loss, per_example
from dpsgd_torch.gradients.target_ranges import TargetRange
from dpsgd_torch.mechanisms.discrete import noisy_score_sum, score_event
from dpsgd_torch.mechanisms.gaussian import grid, normal, to_grid
from dpsgd_torch.training.described import described
from dpsgd_torch.training.evaluation import in_batches, own_batches
from dpsgd_torch.training.filled import filled
from dpsgd_torch.training.keyed import keyed_by
from dpsgd_torch.training.world import ALONE, World

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Rows kept out of training, on which a score decides when to stop or slow down.

    * Public rows: the score is their mean, free of charge.
    * Private rows: each unit's mean score (each row's, where rows are the unit) is clipped to
      [0, ``bound``], so that adding or removing a unit moves the sum by at most ``bound``; Gaussian
      noise of ``noise_multiplier`` × ``bound`` is added, and the sum is divided by the declared
      ``size``. Each release is charged to the run's ledger.

    Args:
        tensors: inputs and targets, first dimension the records, as ``Trainer`` takes them.
        public: whether the rows are declared public.
        size: how many units there are, as declared in public; None takes their number.
        noise_multiplier: deviation of the noise over ``bound``.
        bound: largest score a unit can contribute.
        released: whether the score is released after each epoch; if not, it costs nothing and
            decides nothing, and ``HeldOut.clipped_sum`` is there for a private choice among runs.
        units: the id of each row's unit, or None.
        secure: whether the noise is that of secure mode; set by whoever trains.
        score: (outputs, targets) → one value a row, lower is better; None takes the loss.

    >>> rows = (torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64))
    >>> Validation(tensors=rows, noise_multiplier=20.0, bound=1.0).event
    Gaussian(noise_multiplier=20.0)
    """

    tensors: Any = field(repr=False)
    public: bool = False
    size: int | None = None
    noise_multiplier: float = 50.0
    bound: float = 1.0
    released: bool = True
    units: Any = field(default=None, repr=False)
    score: Loss | None = None
    secure: bool = False

    def __post_init__(self) -> None:
        for name in ("noise_multiplier", "bound"):
            value = getattr(self, name)
            check(0 < value < math.inf, f"validation {name}", value, "must be a number > 0")
        check(self.size is None or self.size >= 1, "validation size", self.size, "must be ≥ 1")
        charged = self.secure and self.released and not self.public
        rule = "must be declared in secure mode: what is charged rests on it"
        check(not charged or self.size is not None, "validation size", self.size, rule)

    @property
    def event(self) -> Event:
        """What each release costs, unless the rows are public."""
        if not self.secure:
            return Gaussian(noise_multiplier=self.noise_multiplier)
        assert self.size  # __post_init__ saw to it
        return score_event(self.noise_multiplier, self.size)

    def to_json(self) -> dict[str, Any]:
        """What was declared."""
        names = ("public", "size", "noise_multiplier", "bound", "released")
        told = {name: getattr(self, name) for name in names}
        return {**told, "secure": True} if self.secure else told


class HeldOut:
    """A ``Validation`` made ready for a device and a loss."""

    def __init__(self, asked: Validation, loss: Loss, device: torch.device) -> None:
        self.asked = asked
        self.data = data_on(device, asked.tensors, "validation")
        rows = len(self.data)
        ids = np.arange(rows) if asked.units is None else asked.units
        self.units: UnitRows = units_of(ids, rows)
        self.size = asked.size or len(self.units)
        rule = f"must be at least half of the {len(self.units)} units there are, in secure mode"
        check(not asked.secure or 2 * self.size >= len(self.units), "size", self.size, rule)
        self.score = loss if asked.score is None else per_example(asked.score, "score")

    def within(self, loss: TargetRange | None) -> TargetRange | None:
        """What its targets must lie within; ``loss``: what the loss's must."""
        return loss if self.asked.score is None else TargetRange.of(self.asked.score)

    def to_json(self) -> dict[str, Any]:
        """What a resumed run must share."""
        asked = self.asked.score
        name = None if asked is None else described(asked)
        return {**self.asked.to_json(), "score": name}

    def scores(self, model: nn.Module, world: World = ALONE) -> Scores:
        """(n,) each row's, float64; each rank of a world takes its part of the rows."""
        counts, size = list[int](), 0
        if self.asked.secure:  # whose passes have one size
            most = math.inf if self.asked.units is not None else 2 * self.size
            size = int(min(rows_at_once(self.data.schema), most))

        def in_one_size() -> Iterator[Batch]:
            for batch in own_batches(self.data, world):
                counts.append(length(batch[0]))
                yield filled(batch, size)

        def scored(outputs: Any, targets: Tree) -> torch.Tensor:
            return self.score(outputs, targets)[: counts[-1]].double().cpu()

        parts = in_batches(model, in_one_size(), scored)
        mine: Scores = torch.cat([torch.zeros(0, dtype=torch.float64), *parts]).numpy()
        world.agree("validation", number_of_validation_rows=len(self.data))
        return world.concatenated(mine)

    def mean(self, scores: Scores) -> float:
        """The mean score of public rows."""
        return float(scores.mean())

    def release(self, scores: Scores, rng: np.random.Generator, *, keyed: bool = False) -> float:
        """The noisy mean of what each unit contributes; ``keyed``: other scores, other noise."""
        units = self.units.means(scores)
        if keyed:
            whole = torch.tensor([clipped_sum(units, self.asked.bound)], dtype=torch.float64)
            rng = keyed_by([whole], rng)
        return noisy_mean(units, self.asked, self.size, rng)

    def clipped_sum(self, model: nn.Module) -> float:
        """The sum over units without noise: private; a unit adds between 0 and ``bound``."""
        return clipped_sum(self.units.means(self.scores(model)), self.asked.bound)


def clipped_sum(scores: Any, bound: float) -> float:
    """Σ clip(score) to [0, bound]; a score that is not a number counts as bound."""
    return float(np.clip(np.nan_to_num(scores, nan=bound), 0.0, bound).sum())


def noisy_mean(scores: Any, asked: Validation, size: int, rng: np.random.Generator) -> float:
    """Σ clip(score) + noise, over the declared size; a score that is not a number counts as bound.

    >>> asked = Validation(tensors=None, noise_multiplier=1e-9, bound=0.5)
    >>> round(noisy_mean(np.array([0.1, 3.0, np.nan]), asked, 10, np.random.default_rng(0)), 6)
    0.11
    """
    if asked.secure:
        total = noisy_score_sum(scores / asked.bound, asked.noise_multiplier, rng)
        return total * asked.bound / size
    std = asked.noise_multiplier * asked.bound
    step = grid(min(asked.bound, std), deviation=std)
    return to_grid(clipped_sum(scores, asked.bound) + std * normal(rng), step) / size


def checksum(value: float) -> int:
    """What the ledger keeps of a released value, to know it again."""
    return zlib.crc32(np.float64(value).tobytes())
