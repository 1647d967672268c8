"""The guarantee in words."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal, localcontext

from accountant.events import Event, Gaussian, PoissonSampled, Relation

RELATION_WORDS = {
    Relation.ADD_OR_REMOVE_ONE: "data sets that differ by adding or removing one record",
}


def round_up(value: float, digits: int = 4) -> str:
    """``value`` with that many decimals, never below it: a printed ε must still hold.

    >>> round_up(0.94220021), round_up(math.inf)
    ('0.9423', '∞')
    """
    if math.isinf(value):
        return "∞"
    with localcontext(prec=400):
        return f"{Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_CEILING):f}"


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
        case PoissonSampled(sampling_rate=rate, event=inner):
            return (
                f"{describe_event(inner)} on a Poisson sample "
                f"(each record joins with probability {rate:.6g})"
            )


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
) -> str:
    """The guarantee as one paragraph.

    >>> print(state([(Gaussian(noise_multiplier=5.0), 1)], 0.98, 1e-5))
    (ε, δ)-differential privacy with ε = 0.9800 and δ = 1e-05,
    between data sets that differ by adding or removing one record,
    for 1 × Gaussian noise of 5 × sensitivity.
    """
    return (
        f"(ε, δ)-differential privacy with ε = {round_up(epsilon)} and δ = {delta!r},\n"
        f"between {RELATION_WORDS[relation]},\nfor {describe_events(events)}."
    )
