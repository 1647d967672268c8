"""What was released: frozen data, and the neighbouring relation it is stated for."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from accountant.errors import InvalidValue, UnsupportedEvent, brief, check, check_size


class Relation(enum.Enum):
    """Which data sets count as neighbours. A guarantee holds for one relation; none convert."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_ONE = "replace_one"
    LABEL_CHANGE = "label_change"


class _Written:
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
        return {"type": _NAMES[type(self)], **{name: _plain(v) for name, v in self._fields()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Relation):
        return value.value
    return value.to_json() if isinstance(value, _Written) else value


def _check_noise(noise_multiplier: float) -> None:
    check_size("noise_multiplier", noise_multiplier)
    check(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "must be ≥ 0")


@dataclass(frozen=True, kw_only=True, repr=False)
class Gaussian(_Written):
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
class Laplace(_Written):
    """Laplace noise of scale noise_multiplier × sensitivity, added to one number.

    >>> Laplace(noise_multiplier=10.0)  # pure ε = 0.1
    Laplace(noise_multiplier=10.0)
    """

    noise_multiplier: float
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)


@dataclass(frozen=True, kw_only=True, repr=False)
class DiscreteGaussian(_Written):
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
class RandomizedResponse(_Written):
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
class ExponentialMechanism(_Written):
    """A choice by the exponential mechanism, or by any ε-bounded-range mechanism.

    The log-probabilities of any two outcomes move by at most ``epsilon`` relative to each other
    [Durfee, Rogers 2019, Def. 3.1].
    """

    epsilon: float
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        check(self.epsilon >= 0, "epsilon", self.epsilon, "must be ≥ 0")


@dataclass(frozen=True, kw_only=True, repr=False)
class NoCost(_Written):
    """No-op event: a release that costs nothing beyond what others are charged for.

    * A mechanism paid for as a whole (correlated noise, a charge made beforehand) writes one a
      step, so that each step has its row in the ledger.
    * Whoever writes it vouches for the rest: the event says nothing of what was released.

    >>> NoCost().to_json()
    {'type': 'no_cost'}
    """

    relation: Relation = Relation.ADD_OR_REMOVE_ONE


Mechanism = Gaussian | Laplace | DiscreteGaussian | RandomizedResponse | ExponentialMechanism


def _continuous(event: Mechanism) -> bool:
    """Whether the noise is Gaussian, or within a hair of it (``accountant.lattice``)."""
    return isinstance(event, Gaussian) or (
        isinstance(event, DiscreteGaussian) and event.dimension > 1
    )


def _check_sampled(event: Mechanism, wanted: Relation, sampler: str) -> None:
    if event.relation is not wanted:
        raise UnsupportedEvent(
            f"relation = {event.relation.value}: {sampler} is analysed for {wanted.value} only; "
            "state the event for that relation, or do not sample"
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class PoissonSampled(_Written):
    """A release computed on a Poisson sample of the records.

    * Each record joins the sample independently of every other, with probability sampling_rate.
    * The sample is drawn afresh for each release and never shown.
    * The sample's size is random and may be zero; the release happens all the same.
    * Neighbours differ by the group_size records of one person, each sampled by itself.
    * Under REPLACE_ONE the sensitivity must be at least what adding a record moves, as it is for
      sums of clipped vectors.
    """

    sampling_rate: float
    event: Mechanism
    group_size: int = 1

    def __post_init__(self) -> None:
        rate = self.sampling_rate
        check(0 <= rate <= 1, "sampling_rate", rate, "must lie in [0, 1]")
        if self.event.relation is not Relation.REPLACE_ONE or not _continuous(self.event):
            _check_sampled(self.event, Relation.ADD_OR_REMOVE_ONE, "Poisson sampling")
        k = self.group_size
        check(k >= 1 and k % 1 == 0, "group_size", k, "must be a whole number ≥ 1")
        if k != 1 and self.relation is Relation.REPLACE_ONE:
            _check_sampled(self.event, Relation.ADD_OR_REMOVE_ONE, "a sampled group")
        if k != 1 and not _continuous(self.event):
            raise UnsupportedEvent(
                f"group_size = {self.group_size}: a sampled group is analysed for Gaussian noise "
                "only; choose another mechanism"
            )

    @property
    def relation(self) -> Relation:
        return self.event.relation


@dataclass(frozen=True, kw_only=True, repr=False)
class FixedSizeSampled(_Written):
    """A Gaussian release computed on a sample of fixed size, drawn without replacement.

    * Every subset of batch_size among dataset_size records is equally likely.
    * The sample is drawn afresh for each release and never shown.
    * Neighbours differ by one record replaced; both sizes are public.
    """

    dataset_size: int
    batch_size: int
    event: Gaussian | DiscreteGaussian

    def __post_init__(self) -> None:
        n, m = self.dataset_size, self.batch_size
        check(n >= 1 and n % 1 == 0, "dataset_size", n, "must be a whole number ≥ 1")
        check(0 <= m <= n and m % 1 == 0, "batch_size", m, f"must lie between 0 and {n}")
        _check_sampled(self.event, Relation.REPLACE_ONE, "sampling at a fixed size")

    @property
    def sampling_rate(self) -> float:
        return self.batch_size / self.dataset_size

    @property
    def relation(self) -> Relation:
        return self.event.relation


@dataclass(frozen=True, kw_only=True, repr=False)
class ShuffledEpoch(_Written):
    """One pass over the data in shuffled batches of a fixed size, one release a batch.

    * Each record is in exactly one batch, so an epoch costs what one release costs.
    * Nothing is claimed for the shuffle: the order of the batches may be known.
    * Neighbours differ by one record replaced: adding one would move others between batches.
    """

    event: Mechanism

    def __post_init__(self) -> None:
        if self.event.relation is Relation.ADD_OR_REMOVE_ONE:
            _check_sampled(self.event, Relation.REPLACE_ONE, "a shuffled epoch")

    @property
    def relation(self) -> Relation:
        return self.event.relation


Event = Mechanism | NoCost | PoissonSampled | FixedSizeSampled | ShuffledEpoch

_TYPES: dict[str, type[Event]] = {
    "gaussian": Gaussian,
    "laplace": Laplace,
    "discrete_gaussian": DiscreteGaussian,
    "randomized_response": RandomizedResponse,
    "exponential_mechanism": ExponentialMechanism,
    "no_cost": NoCost,
    "poisson_sampled": PoissonSampled,
    "fixed_size_sampled": FixedSizeSampled,
    "shuffled_epoch": ShuffledEpoch,
}
_NAMES: dict[type, str] = {kind: name for name, kind in _TYPES.items()}


def mechanism(event: Event) -> Mechanism | NoCost:
    """What is released, whatever it is computed on.

    >>> mechanism(ShuffledEpoch(event=RandomizedResponse(noise_parameter=0.5)))
    RandomizedResponse(noise_parameter=0.5)
    """
    match event:
        case PoissonSampled() | FixedSizeSampled() | ShuffledEpoch():
            return event.event
    return event


def count_runs(events: Iterable[Event]) -> list[tuple[Event, int]]:
    """Events in order, equal neighbours counted together.

    >>> small, large = Gaussian(noise_multiplier=1.0), Gaussian(noise_multiplier=2.0)
    >>> [count for _, count in count_runs([small, small, large, small])]
    [2, 1, 1]
    """
    return [(event, len(list(run))) for event, run in itertools.groupby(events)]


def event_from_json(data: Mapping[str, Any]) -> Event:
    """The event that ``to_json`` wrote.

    >>> event = PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=1.0))
    >>> event_from_json(event.to_json()) == event
    True
    """
    fields = dict(data)
    try:
        kind = _TYPES[fields.pop("type")]
        for name, value in fields.items():
            check_size(name, value)
        if "relation" in fields:
            fields["relation"] = Relation(fields["relation"])
        if "event" in fields:
            inner = event_from_json(fields["event"])
            fields["event"] = inner if isinstance(inner, Mechanism) else None
        return kind(**fields)
    except InvalidValue:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UnsupportedEvent(
            f"event {brief(data)}: not one this version can price; upgrade"
        ) from None
