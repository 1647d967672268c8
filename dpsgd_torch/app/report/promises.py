"""One run, several promises: for whoever holds one row, and for whoever holds many."""

from __future__ import annotations

from dataclasses import dataclass

from accountant import (
    Event,
    Gaussian,
    NoCost,
    PldAccountant,
    PoissonSampled,
    Relation,
    UnsupportedEvent,
    for_group,
)
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee

SIZES = (2, 3, 6, 12, 18)


@dataclass(frozen=True)
class Promises:
    """ε for a unit by how many rows it has, where rows are protected, and where ``unit`` is as one.

    ``altered`` is ε for a unit that stays while its rows change, in a run that protects it as one.
    """

    unit: str
    by_rows: tuple[tuple[int, float], ...]
    as_one: float
    protects_unit: bool
    altered: float | None

    @classmethod
    def of(cls, spent: PrivacyGuarantee, events: list[tuple[Event, int]], unit: str) -> Promises:
        """Of a run's ledger, beside what the same noise would promise the other way."""
        protects = spent.unit != "record"
        return cls(
            unit=unit,
            by_rows=((1, spent.epsilon), *by_rows(events, spent.delta)),
            as_one=spent.epsilon,
            protects_unit=protects,
            altered=if_altered(events, spent.delta) if protects else None,
        )


def by_rows(events: list[tuple[Event, int]], delta: float) -> list[tuple[int, float]]:
    """(rows of a unit, ε) where rows are sampled and clipped each for itself: groups, exactly.

    >>> step = PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=4.0))
    >>> [round(epsilon, 2) for _, epsilon in by_rows([(step, 100)], 1e-5)[:3]]
    [2.12, 3.36, 7.56]
    """
    found = []
    for size in SIZES:
        try:
            grouped = [
                (part, count * times)
                for event, count in events
                for part, times in for_group(event, size)
            ]
        except UnsupportedEvent:  # a sampler whose groups nobody has priced
            break
        found.append((size, _roughly(grouped, delta)))
    return found


def if_altered(events: list[tuple[Event, int]], delta: float) -> float | None:
    """ε where a unit's rows change but the unit stays: it moves the sum by up to twice the clip.

    None where something besides Gaussian noise was released, for which no such price is known here.
    """
    try:
        altered = [(_replaced(event), count) for event, count in events]
    except UnsupportedEvent:
        return None
    return _roughly(altered, delta)


def _roughly(events: list[tuple[Event, int]], delta: float) -> float:
    """By wide intervals and few distinct noises: above the truth, and quick for long schedules."""
    return PldAccountant(width=1e-3, most_events=12).compose_all(events).upper(delta)


def _replaced(event: Event) -> Event:
    match event:
        case PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise)):
            half = Gaussian(noise_multiplier=noise / 2, relation=Relation.REPLACE_ONE)
            return PoissonSampled(sampling_rate=rate, event=half)
        case Gaussian(noise_multiplier=noise):
            return Gaussian(noise_multiplier=noise / 2, relation=Relation.REPLACE_ONE)
        case NoCost():
            return NoCost(relation=Relation.REPLACE_ONE)
    raise UnsupportedEvent(f"{event!r}: has no price for replacement here")
