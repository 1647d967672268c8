"""Gaussian differential privacy by the central limit theorem: an estimate, NOT a bound."""

from __future__ import annotations

import math
from collections.abc import Iterable

from accountant.errors import UnsupportedEvent, check_delta
from accountant.events import Event, Gaussian, NoCost, PoissonSampled, Relation
from accountant.gaussian import gaussian_epsilon


def gdp_mu(events: Iterable[tuple[Event, int]]) -> float:
    """μ of the Gaussian mechanism that the run resembles when it has many small steps.

    μ² = Σ n q² (exp(1/σ²) − 1) [Bu, Dong, Long, Su 2020, Sec. 3.1], for Poisson samples.

    >>> step = PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=1.0))
    >>> round(gdp_mu([(step, 1000)]), 9)
    0.414521631
    """
    total = 0.0
    for event, count in events:
        match event:
            case NoCost():
                continue
            case Gaussian(noise_multiplier=noise) if noise > 0:
                total += count / noise**2
            case PoissonSampled(
                sampling_rate=q,
                event=Gaussian(noise_multiplier=noise, relation=Relation.ADD_OR_REMOVE_ONE),
                group_size=1,
            ) if noise > 0:
                exponent = noise**-2
                total += count * q * q * (math.expm1(exponent) if exponent < 700 else math.inf)
            case _:
                raise UnsupportedEvent(
                    f"event {event!r}: the central limit is worked out for Gaussian noise on "
                    "Poisson samples; use method exact"
                )
    return math.sqrt(total)


def gdp_epsilon(events: Iterable[tuple[Event, int]], delta: float) -> float:
    """ε of that Gaussian mechanism: often below the truth, so never to be published as a bound.

    >>> step = PoissonSampled(sampling_rate=250/60000, event=Gaussian(noise_multiplier=1.3))
    >>> round(gdp_epsilon([(step, 3600)], 1e-5), 6)  # the truth is 0.852980
    0.823696
    """
    check_delta(delta)
    mu = gdp_mu(events)
    return gaussian_epsilon(mu, delta)[0] if math.isfinite(mu) else math.inf
