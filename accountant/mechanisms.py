"""Mechanisms: what is released of the records that are looked at, as frozen data."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accountant.errors import check, check_size

NAMES: dict[type, str] = {}
"""What each kind of event is called where it is written down, filled by ``accountant.events``."""


class Relation(enum.Enum):
    """Which data sets count as neighbours. A guarantee holds for one relation; none convert."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_ONE = "replace_one"
    LABEL_CHANGE = "label_change"


class Written:
    """Written with the fields that are not at their default, as JSON and as repr."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields())
        return f"{type(self).__name__}({fields})"

    def _fields(self) -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                yield field.name, value

    def to_json(self) -> dict[str, Any]:
        return {"type": NAMES[type(self)], **{name: _plain(v) for name, v in self._fields()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Relation):
        return value.value
    return value.to_json() if isinstance(value, Written) else value


def _check_noise(noise_multiplier: float) -> None:
    check_size("noise_multiplier", noise_multiplier)
    check(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "must be ≥ 0")


@dataclass(frozen=True, kw_only=True, repr=False)
class Gaussian(Written):
    """Gaussian noise of standard deviation noise_multiplier × sensitivity.

    The sensitivity is that of ``relation``: replacing a record moves a sum of vectors of norm C
    by up to 2C, adding one by C.

    >>> Gaussian(noise_multiplier=1.3).to_json()
    {'type': 'gaussian', 'noise_multiplier': 1.3}
    """

    noise_multiplier: float
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)


@dataclass(frozen=True, kw_only=True, repr=False)
class Laplace(Written):
    """Laplace noise of scale noise_multiplier × sensitivity, added to one number.

    >>> Laplace(noise_multiplier=10.0)  # pure ε = 0.1
    Laplace(noise_multiplier=10.0)
    """

    noise_multiplier: float
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)


@dataclass(frozen=True, kw_only=True, repr=False)
class DiscreteGaussian(Written):
    """Discrete Gaussian noise on the integers, added to an integer or to each of a vector's.

    P(k) ∝ exp(−k²/(2σ²)) with σ = noise_multiplier × sensitivity [Canonne, Kamath, Steinke 2020].
    A vector's sensitivity is that of its L2 norm, in cells of the grid, and σ at least 4 of them.

    >>> DiscreteGaussian(noise_multiplier=1.5, sensitivity=1000.5, dimension=26010).deviation
    1500.75
    """

    noise_multiplier: float
    sensitivity: float = 1
    relation: Relation = Relation.ADD_OR_REMOVE_ONE
    dimension: int = 1

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        d, shift = self.dimension, self.sensitivity
        check(d >= 1 and d % 1 == 0, "dimension", d, "must be a whole number ≥ 1")
        if d == 1:
            check(shift >= 1 and shift % 1 == 0, "sensitivity", shift, "must be a whole number ≥ 1")
            return
        check(1 <= shift < math.inf, "sensitivity", shift, "must be a number ≥ 1")
        check(
            self.deviation >= 4 * (1 - 1e-9),
            "noise_multiplier × sensitivity",
            self.deviation,
            "must be at least 4 cells in more than one dimension",
            "take a finer grid",
        )

    @property
    def deviation(self) -> float:
        """σ, in cells of the grid."""
        return self.noise_multiplier * self.sensitivity


@dataclass(frozen=True, kw_only=True, repr=False)
class RandomizedResponse(Written):
    """One of ``categories`` answers: uniform with probability noise_parameter, else the truth.

    The truth is told with probability 1 − p + p/k in all.
    """

    noise_parameter: float
    categories: int = 2
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        p, k = self.noise_parameter, self.categories
        check(0 <= p <= 1, "noise_parameter", p, "must lie in [0, 1]")
        check(k >= 2 and k % 1 == 0, "categories", k, "must be a whole number ≥ 2")


@dataclass(frozen=True, kw_only=True, repr=False)
class ExponentialMechanism(Written):
    """A choice by the exponential mechanism, or by any ε-bounded-range mechanism.

    The log-probabilities of any two outcomes move by at most ``epsilon`` relative to each other
    [Durfee, Rogers 2019, Def. 3.1].
    """

    epsilon: float
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        check(self.epsilon >= 0, "epsilon", self.epsilon, "must be ≥ 0")


@dataclass(frozen=True, kw_only=True, repr=False)
class NoCost(Written):
    """No-op event: a release that costs nothing beyond what others are charged for.

    * A mechanism paid for as a whole (correlated noise, a charge made beforehand) writes one a
      step, so that each step has its row in the ledger.
    * Whoever writes it vouches for the rest: the event says nothing of what was released.

    >>> NoCost().to_json()
    {'type': 'no_cost'}
    """

    relation: Relation = Relation.ADD_OR_REMOVE_ONE
