"""A DP-SGD run as events: what one step releases, and how many steps there are."""

from __future__ import annotations

import enum
import math
from fractions import Fraction

from accountant.errors import UnsupportedEvent, check, check_count
from accountant.events import (
    Event,
    FixedSizeSampled,
    Gaussian,
    PoissonSampled,
    RandomAllocation,
    Relation,
    ShuffledEpoch,
    TruncatedPoissonSampled,
)


class Sampler(enum.Enum):
    """How batches are drawn."""

    POISSON = "poisson"
    FIXED_SIZE = "fixed"
    SHUFFLED = "shuffled"
    TRUNCATED = "truncated"
    BALLS = "balls"
    ALLOCATION = "allocation"


def dpsgd_event(
    *, dataset_size: int, batch_size: int, noise_multiplier: float, microbatch_size: int = 1
) -> PoissonSampled:
    """One step of DP-SGD, as it is charged under add/remove of one record.

    A record alone under its clip moves the sum by at most C. In a microbatch of several it
    moves one clipped vector from anywhere in the ball of radius C to anywhere else, 2C, so the
    noise counts for half.

    >>> dpsgd_event(dataset_size=60000, batch_size=50, noise_multiplier=1.2, microbatch_size=5)
    PoissonSampled(sampling_rate=0.0008333333333333334, event=Gaussian(noise_multiplier=0.6))
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


def dpsgd_events(
    *,
    dataset_size: int,
    batch_size: int,
    noise_multiplier: float,
    steps: int,
    microbatch_size: int = 1,
    sampler: Sampler = Sampler.POISSON,
    relation: Relation | None = None,
    number: int | None = None,
) -> list[tuple[Event, int]]:
    """A whole run, as it is charged under the sampler's own relation or the one asked for.

    Poisson samples are analysed for add/remove and for replace-one, those of a fixed size and
    shuffled ones for replace-one alone, the others for add/remove. Replacing a record moves the sum
    by up to 2C, in a microbatch or out of it.

    ``number`` is the largest truncated sample, or in how many batches of ⌈number × n / B⌉ a record
    is allocated; a last round that ``steps`` cut short costs as much as a whole one.

    >>> run = dict(dataset_size=1000, batch_size=100, noise_multiplier=2.0, steps=25)
    >>> dpsgd_events(**run)
    [(PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=2.0)), 25)]
    >>> dpsgd_events(**run, sampler=Sampler.SHUFFLED)[0][1]  # epochs, the last one begun
    3
    """
    check_count("steps", steps)
    step = dpsgd_event(
        dataset_size=dataset_size,
        batch_size=batch_size,
        noise_multiplier=noise_multiplier,
        microbatch_size=microbatch_size,
    )
    added = Gaussian(noise_multiplier=noise_multiplier / (1 if microbatch_size == 1 else 2))
    replaced = Gaussian(noise_multiplier=noise_multiplier / 2, relation=Relation.REPLACE_ONE)
    match sampler, relation:
        case Sampler.POISSON, None | Relation.ADD_OR_REMOVE_ONE:
            return [(step, steps)]
        case Sampler.POISSON, Relation.REPLACE_ONE:
            return [(PoissonSampled(sampling_rate=step.sampling_rate, event=replaced), steps)]
        case Sampler.FIXED_SIZE, None | Relation.REPLACE_ONE:
            fixed = FixedSizeSampled(
                dataset_size=dataset_size, batch_size=batch_size, event=replaced
            )
            return [(fixed, steps)]
        case Sampler.SHUFFLED, None | Relation.REPLACE_ONE:
            return [
                (
                    ShuffledEpoch(event=replaced),
                    math.ceil(Fraction(steps * batch_size, dataset_size)),
                )
            ]
        case Sampler.TRUNCATED, None | Relation.ADD_OR_REMOVE_ONE:
            check(number is not None, "most", number, "must be given", "say truncated:NUMBER")
            truncated = TruncatedPoissonSampled(
                sampling_rate=step.sampling_rate,
                dataset_size=dataset_size,
                most=number or 0,
                event=added,
            )
            return [(truncated, steps)]
        case Sampler.BALLS | Sampler.ALLOCATION, None | Relation.ADD_OR_REMOVE_ONE:
            k = number or 1
            each = math.ceil(Fraction(k * dataset_size, batch_size))
            allocation = RandomAllocation(
                steps=each,
                selected=k,
                event=added,
            )
            return [(allocation, math.ceil(Fraction(steps, each)))]
    raise UnsupportedEvent(
        f"relation = {relation.value if relation else None}: {sampler.value} batches have no "
        "analysis for it; choose the other, or Poisson samples"
    )


def dpsgd_steps(*, dataset_size: int, batch_size: int, epochs: float) -> int:
    """Steps that pass over n records ``epochs`` times in expectation, rounded up.

    >>> dpsgd_steps(dataset_size=60000, batch_size=250, epochs=15)
    3600
    """
    check(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
    check(epochs >= 0 and math.isfinite(epochs), "epochs", epochs, "must be a number ≥ 0")
    return math.ceil(Fraction(str(epochs)) * dataset_size / batch_size)
