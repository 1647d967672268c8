"""What was released: frozen data, and the neighbouring relation it is stated for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from accountant.errors import InvalidValue, UnsupportedEvent, brief, check, check_size
from accountant.mechanisms import (
    NAMES,
    DiscreteGaussian,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    NoCost,
    RandomizedResponse,
    Relation,
    Written,
)

__all__ = [
    "DiscreteGaussian",
    "Event",
    "ExponentialMechanism",
    "FixedSizeSampled",
    "Gaussian",
    "Laplace",
    "Mechanism",
    "NoCost",
    "PoissonSampled",
    "RandomAllocation",
    "RandomizedResponse",
    "Relation",
    "ShuffledEpoch",
    "TruncatedPoissonSampled",
    "count_runs",
    "event_from_json",
    "mechanism",
]

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
class PoissonSampled(Written):
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
class FixedSizeSampled(Written):
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
class ShuffledEpoch(Written):
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


@dataclass(frozen=True, kw_only=True, repr=False)
class TruncatedPoissonSampled(Written):
    """A Gaussian release computed on a Poisson sample of which at most ``most`` records are kept.

    * Each of dataset_size records at most joins independently with probability sampling_rate;
      of a larger sample ``most`` are kept, uniformly at random.
    * The sample is drawn afresh for each release and never shown.
    * Neighbours differ by one record added or removed, and hold dataset_size at most, both of them.
    """

    sampling_rate: float
    dataset_size: int
    most: int
    event: Gaussian | DiscreteGaussian
    group_size: int = 1

    def __post_init__(self) -> None:
        _ = self.untruncated  # checks rate, event and group, also where asserts are left out
        _check_sampled(self.event, Relation.ADD_OR_REMOVE_ONE, "truncated Poisson sampling")
        n, most = self.dataset_size, self.most
        check(n >= 1 and n % 1 == 0, "dataset_size", n, "must be a whole number ≥ 1")
        check(most >= 1 and most % 1 == 0, "most", most, "must be a whole number ≥ 1")

    @property
    def relation(self) -> Relation:
        return self.event.relation

    @property
    def untruncated(self) -> PoissonSampled:
        """The release on the whole of the sample."""
        return PoissonSampled(
            sampling_rate=self.sampling_rate, event=self.event, group_size=self.group_size
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class RandomAllocation(Written):
    """``steps`` Gaussian releases, of which each record takes part in exactly ``selected``.

    * Which these are is uniform, independent of every other record, and never shown.
    * With selected = 1 this is an epoch of balls-in-bins.
    * Neighbours differ by one record added or removed.
    * It is one event: all releases are paid together, and no part of them for less.
    """

    steps: int
    selected: int = 1
    event: Gaussian

    def __post_init__(self) -> None:
        t, k = self.steps, self.selected
        check(t >= 1 and t % 1 == 0, "steps", t, "must be a whole number ≥ 1")
        check(1 <= k <= t and k % 1 == 0, "selected", k, f"must lie between 1 and {t}")
        _check_sampled(self.event, Relation.ADD_OR_REMOVE_ONE, "random allocation")

    @property
    def relation(self) -> Relation:
        return self.event.relation


Event = (
    Mechanism
    | NoCost
    | PoissonSampled
    | FixedSizeSampled
    | ShuffledEpoch
    | TruncatedPoissonSampled
    | RandomAllocation
)

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
    "truncated_poisson_sampled": TruncatedPoissonSampled,
    "random_allocation": RandomAllocation,
}
NAMES.update({kind: name for name, kind in _TYPES.items()})


def mechanism(event: Event) -> Mechanism | NoCost:
    """What is released, whatever it is computed on.

    >>> mechanism(ShuffledEpoch(event=RandomizedResponse(noise_parameter=0.5)))
    RandomizedResponse(noise_parameter=0.5)
    """
    match event:
        case PoissonSampled() | FixedSizeSampled() | ShuffledEpoch():
            return event.event
        case TruncatedPoissonSampled() | RandomAllocation():
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
