"""What was released: frozen data, and the neighbouring relation it is stated for."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from accountant.errors import UnsupportedEvent, check


class Relation(enum.Enum):
    """Which data sets count as neighbours."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Gaussian noise of standard deviation noise_multiplier × sensitivity.

    >>> Gaussian(noise_multiplier=1.3).to_json()
    {'type': 'gaussian', 'noise_multiplier': 1.3}
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check(self.noise_multiplier >= 0, "noise_multiplier", self.noise_multiplier, "must be ≥ 0")

    def to_json(self) -> dict[str, Any]:
        return {"type": "gaussian", "noise_multiplier": self.noise_multiplier}


@dataclass(frozen=True, kw_only=True)
class PoissonSampled:
    """A release computed on a Poisson sample of the records.

    * Each record joins the sample independently of every other, with probability sampling_rate.
    * The sample is drawn afresh for each release and never shown.
    * The sample's size is random and may be zero; the release happens all the same.
    """

    sampling_rate: float
    event: Gaussian

    def __post_init__(self) -> None:
        rate = self.sampling_rate
        check(0 <= rate <= 1, "sampling_rate", rate, "must lie in [0, 1]")

    def to_json(self) -> dict[str, Any]:
        event = self.event.to_json()
        return {"type": "poisson_sampled", "sampling_rate": self.sampling_rate, "event": event}


Event = Gaussian | PoissonSampled


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
    match data:
        case {"type": "gaussian", "noise_multiplier": noise}:
            return Gaussian(noise_multiplier=noise)
        case {"type": "poisson_sampled", "sampling_rate": rate, "event": inner}:
            event = event_from_json(inner)
            if isinstance(event, Gaussian):
                return PoissonSampled(sampling_rate=rate, event=event)
    raise UnsupportedEvent(f"event {dict(data)!r}: not one this version can price; upgrade")


def dpsgd_event(
    *, dataset_size: int, batch_size: int, noise_multiplier: float, microbatch_size: int = 1
) -> PoissonSampled:
    """One step of DP-SGD, as it is charged under add/remove of one record.

    A record alone under its clip moves the sum by at most C. In a microbatch of several it
    moves one clipped vector from anywhere in the ball of radius C to anywhere else, 2C, so the
    noise counts for half.

    >>> dpsgd_event(dataset_size=60000, batch_size=50, noise_multiplier=1.2, microbatch_size=5)
    ... # doctest: +NORMALIZE_WHITESPACE
    PoissonSampled(sampling_rate=0.0008333333333333334,
                   event=Gaussian(noise_multiplier=0.6))
    """
    check(dataset_size >= 1, "n", dataset_size, "must be at least 1 record")
    check(
        1 <= batch_size <= dataset_size,
        "batch_size",
        batch_size,
        f"must lie between 1 and n = {dataset_size}",
        "lower the batch size",
    )
    check(
        microbatch_size >= 1 and batch_size % microbatch_size == 0,
        "microbatch_size",
        microbatch_size,
        f"must divide the batch of {batch_size}",
        "choose a divisor",
    )
    sensitivity = 1 if microbatch_size == 1 else 2
    return PoissonSampled(
        sampling_rate=batch_size / dataset_size,
        event=Gaussian(noise_multiplier=noise_multiplier / sensitivity),
    )


def dpsgd_steps(*, dataset_size: int, batch_size: int, epochs: float) -> int:
    """Steps that pass over n records ``epochs`` times in expectation, rounded up.

    >>> dpsgd_steps(dataset_size=60000, batch_size=250, epochs=15)
    3600
    """
    check(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
    check(epochs >= 0 and math.isfinite(epochs), "epochs", epochs, "must be a number ≥ 0")
    return math.ceil(Fraction(str(epochs)) * dataset_size / batch_size)
