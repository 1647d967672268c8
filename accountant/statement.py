"""The guarantee in words and as data: what is promised, to whom, and what is not."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from accountant.events import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    NoCost,
    PoissonSampled,
    RandomAllocation,
    RandomizedResponse,
    Relation,
    ShuffledEpoch,
    TruncatedPoissonSampled,
)

RELATION_WORDS = {
    Relation.ADD_OR_REMOVE_ONE: "data sets that differ by adding or removing one record",
    Relation.REPLACE_ONE: "data sets of one size that differ by replacing one record",
    Relation.LABEL_CHANGE: "data sets that differ in the label of one record",
}
COVERED = (
    "everything computed from the noisy releases alone, however often and by whomever",
    "releases chosen in view of earlier ones",
)
NOT_COVERED = (
    "what is released beside them: losses, batch sizes, gradient norms, a random seed",
    "other runs on the same data: trying hyper-parameters, stopping early, choosing a model",
    "the sizes and rates stated here, which count as public",
    "rounding of the noise and weakness of the random generator",
)


def round_up(value: float, digits: int = 4) -> str:
    """``value`` with that many decimals, never below it: a printed ε must still hold.

    >>> round_up(0.94220021), round_up(math.inf)
    ('0.9423', '∞')
    """
    return _rounded(value, digits, ROUND_CEILING)


def round_down(value: float, digits: int = 4) -> str:
    """``value`` with that many decimals, never above it.

    >>> round_down(0.94229)
    '0.9422'
    """
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, direction: str) -> str:
    if math.isinf(value):
        return "∞"
    with localcontext(prec=400):
        return f"{Decimal(value).quantize(Decimal(1).scaleb(-digits), direction):f}"


def weak_delta(delta: float, dataset_size: int) -> str:
    """What to say of a δ that is not below 1/n; empty where it is.

    >>> weak_delta(1e-5, 60_000)
    ''
    """
    if delta < 1 / dataset_size:
        return ""
    return (
        f"delta = {delta:g} is not below 1/n = {1 / dataset_size:.3g}: publishing one record in "
        "full could satisfy it; lower delta"
    )


def describe_event(event: Event) -> str:
    """One release, in words.

    >>> describe_event(Gaussian(noise_multiplier=2.0))
    'Gaussian noise of 2 × sensitivity'
    """
    match event:
        case Gaussian(noise_multiplier=noise):
            return f"Gaussian noise of {noise:.6g} × sensitivity"
        case Laplace(noise_multiplier=noise):
            return f"Laplace noise of scale {noise:.6g} × sensitivity"
        case DiscreteGaussian(noise_multiplier=noise, dimension=d):
            each = f" on each of {d} coordinates" if d > 1 else ""
            return f"discrete Gaussian noise of {noise:.6g} × sensitivity{each}"
        case RandomizedResponse(noise_parameter=p, categories=k):
            return f"randomized response among {k}, uniform with probability {p:.6g}"
        case ExponentialMechanism(epsilon=epsilon):
            return f"a choice by the exponential mechanism of range {epsilon:.6g}"
        case NoCost():
            return "a release that is paid for elsewhere in this sum"
        case PoissonSampled(event=inner) | FixedSizeSampled(event=inner):
            return f"{describe_event(inner)} on {describe_sampler(event)}"
        case TruncatedPoissonSampled(event=inner):
            return f"{describe_event(inner)} on {describe_sampler(event)}"
        case ShuffledEpoch(event=inner) | RandomAllocation(event=inner):
            return f"{describe_event(inner)} in {describe_sampler(event)}"


def describe_sampler(event: Event) -> str:
    """How the records of one release are drawn, in words."""
    match event:
        case PoissonSampled(sampling_rate=rate):
            return f"a Poisson sample (each record joins with probability {rate:.6g})"
        case FixedSizeSampled(batch_size=m, dataset_size=n):
            return f"a sample of fixed size ({m} of {n} without replacement)"
        case ShuffledEpoch():
            return "every batch of one epoch (each record is in one batch; no credit for shuffling)"
        case TruncatedPoissonSampled(sampling_rate=rate, most=m, dataset_size=n):
            return (
                f"a truncated Poisson sample (each of {n} records at most joins with probability "
                f"{rate:.6g}, and {m} are kept at most)"
            )
        case RandomAllocation(steps=t, selected=1):
            return f"each of {t} batches (each record is in one, drawn by itself: balls in bins)"
        case RandomAllocation(steps=t, selected=k):
            return f"each of {t} batches (each record is in exactly {k}, drawn by itself)"
    return "all records"


def unit_of_privacy(events: list[tuple[Event, int]], group_size: int = 1) -> str:
    """Whose data the guarantee protects.

    >>> unit_of_privacy([])
    'one record'
    """
    kinds = PoissonSampled | TruncatedPoissonSampled
    sampled = [event.group_size for event, _ in events if isinstance(event, kinds)]
    size = max([group_size, *sampled])
    return "one record" if size == 1 else f"one person's {size} records"


def describe_events(events: list[tuple[Event, int]]) -> str:
    """What was composed, in words; a long schedule is told by its first and last step."""
    if len(events) > 4:
        (first, _), (last, _) = events[0], events[-1]
        total = sum(count for _, count in events)
        return f"{total} releases, from {describe_event(first)} to {describe_event(last)}"
    return "; ".join(f"{count} × {describe_event(event)}" for event, count in events) or "nothing"


def state(
    events: list[tuple[Event, int]],
    epsilon: float,
    delta: float,
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
    group_size: int = 1,
) -> str:
    """The guarantee as one paragraph.

    >>> print(state([(Gaussian(noise_multiplier=5.0), 1)], 0.98, 1e-5))
    (ε, δ)-differential privacy with ε = 0.9800 and δ = 1e-05,
    between data sets that differ by adding or removing one record,
    for 1 × Gaussian noise of 5 × sensitivity.
    """
    unit = unit_of_privacy(events, group_size)
    return (
        f"(ε, δ)-differential privacy with ε = {round_up(epsilon)} and δ = {delta!r},\n"
        f"between {RELATION_WORDS[relation].replace('one record', unit)},\n"
        f"for {describe_events(events)}."
    )


def state_as_json(
    events: list[tuple[Event, int]], epsilon: float, delta: float, group_size: int = 1
) -> dict[str, Any]:
    """The guarantee as data, with the words beside the figures.

    >>> said = state_as_json([(Gaussian(noise_multiplier=5.0), 1)], 0.98, 1e-5)
    >>> said["relation"], said["unit"], said["epsilon"]
    ('add_or_remove_one', 'one record', 0.98)
    """
    relation = events[0][0].relation if events else Relation.ADD_OR_REMOVE_ONE
    return {
        "guarantee": state(events, epsilon, delta, relation, group_size),
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": delta,
        "relation": relation.value,
        "unit": unit_of_privacy(events, group_size),
        "sampler": sorted({describe_sampler(event) for event, _ in events}),
        "events": [{**event.to_json(), "count": count} for event, count in events],
        "covered": list(COVERED),
        "not_covered": list(NOT_COVERED),
    }
