"""Group privacy: what an event costs people who hold several records each."""

from __future__ import annotations

from dataclasses import replace

from accountant.errors import UnsupportedEvent, check
from accountant.events import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    NoCost,
    PoissonSampled,
    RandomizedResponse,
    ShuffledEpoch,
    TruncatedPoissonSampled,
)


def for_group(event: Event, size: int) -> list[tuple[Event, int]]:
    """What one release of ``event`` costs a person with ``size`` records, as (event, count) pairs.

    Exactly, not by the k-fold bound: noise is seen against k times the sensitivity, the k answers
    of randomized response are k releases, and in a Poisson sample the number of the person's
    records is binomial [Ganesh, "Tight group-level DP guarantees for DP-SGD with sampling via
    mixture of Gaussians mechanisms", 2024, Theorem 4.1].

    >>> for_group(Gaussian(noise_multiplier=3.0), 3)
    [(Gaussian(noise_multiplier=1.0), 1)]
    >>> for_group(RandomizedResponse(noise_parameter=0.5), 3)
    [(RandomizedResponse(noise_parameter=0.5), 3)]
    """
    check(size >= 1 and size % 1 == 0, "group_size", size, "must be a whole number ≥ 1")
    if size == 1:
        return [(event, 1)]
    match event:
        case NoCost():
            return [(event, 1)]
        case Gaussian() | Laplace():
            return [(replace(event, noise_multiplier=event.noise_multiplier / size), 1)]
        case DiscreteGaussian(noise_multiplier=noise, sensitivity=shift):
            wide = replace(event, noise_multiplier=noise / size, sensitivity=shift * size)
            return [(wide, 1)]
        case RandomizedResponse():
            return [(event, size)]
        case ExponentialMechanism(epsilon=epsilon):
            return [(replace(event, epsilon=epsilon * size), 1)]
        case PoissonSampled(event=Gaussian() | DiscreteGaussian() as inner) if (
            isinstance(inner, Gaussian) or inner.dimension > 1
        ):
            return [(replace(event, group_size=event.group_size * size), 1)]
        case TruncatedPoissonSampled():  # the whole sample's, and as much truncated
            return [(replace(event, group_size=event.group_size * size), 1)]
        case ShuffledEpoch(event=Gaussian() as inner):  # at worst all in one batch
            whole = replace(inner, noise_multiplier=inner.noise_multiplier / size)
            return [(ShuffledEpoch(event=whole), 1)]
    raise UnsupportedEvent(
        f"group_size = {size}: no analysis of groups for {event!r}; use Gaussian noise on a "
        "Poisson sample, or state the guarantee for one record"
    )
