"""ε by two accountants that share no code: ours, and Opacus's. They must agree."""

from __future__ import annotations

import math
import warnings

import numpy as np

from accountant import (
    COMMON_ORDERS,
    Event,
    Gaussian,
    PoissonSampled,
    RandomAllocation,
    RdpAccountant,
    Relation,
    ShuffledEpoch,
    UnsupportedEvent,
)
from accountant.events import mechanism
from accountant.lattice import continuous
from accountant.rdp.conversion import improved
from accountant.truncation import untruncated
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.privacy.opacus_alone import opacus_alone

opacus_rdp = opacus_alone("accountants.analysis.rdp")
TOLERANCE = 1e-6  # relative difference of ε on equal orders


def opacus_epsilon(events: list[tuple[Event, int]], delta: float) -> tuple[float, float]:
    """Opacus's ε over the common orders and the relative difference from ours on equal orders.

    The difference is taken where our ε is smallest on the common grid, the order on which the
    printed figure rests. Opacus prices Gaussian noise, on Poisson samples with one record added
    or removed, or on all records (once in a pass), and discrete Gaussian noise as the continuous
    that costs no less; for other noise (Laplace noise, exponential mechanism) our own divergences
    stand in both sums, and for random allocation, which it has no price for (``opacus_prices``).
    Truncated samples are whole ones to it, at the δ that is left of what truncation adds where ours
    is smallest.

    Raises:
        UnsupportedEvent: Gaussian noise on records drawn otherwise, which nobody else has priced.

    >>> from accountant import dpsgd_event
    >>> step = dpsgd_event(dataset_size=60000, batch_size=250, noise_multiplier=1.3)
    >>> epsilon, difference = opacus_epsilon([(step, 3600)], 1e-5)
    >>> round(epsilon, 7), difference < 1e-9
    (0.9422002, True)
    """
    delta = _left(events, delta)
    events = untruncated(events)[0]
    accountant = RdpAccountant()
    theirs = np.zeros(COMMON_ORDERS.shape)
    for event, count in events:
        accountant.compose(event, count)
        priced = _theirs(event)
        if priced is None:
            theirs += RdpAccountant().compose(event, count).rdp()
            continue
        rate, noise_multiplier = priced
        theirs += opacus_rdp.compute_rdp(
            q=rate,
            noise_multiplier=noise_multiplier,
            steps=count,
            orders=list(COMMON_ORDERS),
        )
    ours = improved(COMMON_ORDERS, accountant.rdp(), delta)
    best = int(np.argmin(ours))
    if math.isinf(ours[best]):
        return math.inf, 0.0
    same_order = float(improved(COMMON_ORDERS, theirs, delta)[best])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that the best order is an edge; so do we
        epsilon, _ = opacus_rdp.get_privacy_spent(
            orders=list(COMMON_ORDERS), rdp=theirs, delta=delta
        )
    scale = max(float(ours[best]), 1e-12)
    return max(float(epsilon), 0.0), abs(float(ours[best]) - same_order) / scale


def opacus_prices(events: list[tuple[Event, int]]) -> bool:
    """Whether the Gaussian noise of the events is on records drawn as Opacus can price them."""
    return not any(isinstance(event, RandomAllocation) for event, _ in events)


def _left(events: list[tuple[Event, int]], delta: float) -> float:
    """What is left of δ once truncation has taken its part."""
    slip = untruncated(events)[1]
    reached = RdpAccountant().compose_all(events).epsilon(delta).upper if slip else 0.0
    return max(delta - (1 + math.exp(min(reached, 700.0))) * slip, 1e-300) if slip else delta


def _theirs(event: Event) -> tuple[float, float] | None:
    """Rate and noise multiplier as Opacus prices them; None where the noise is not its own."""
    match continuous(event, costlier=True) or event:
        case Gaussian(noise_multiplier=noise):
            return 1.0, noise
        case ShuffledEpoch(event=Gaussian(noise_multiplier=noise)):
            return 1.0, noise  # each record is in one of its batches
        case PoissonSampled(
            sampling_rate=rate,
            event=Gaussian(noise_multiplier=noise, relation=Relation.ADD_OR_REMOVE_ONE),
            group_size=1,
        ):
            return rate, noise
    if isinstance(event, RandomAllocation):
        return None
    if isinstance(mechanism(event), Gaussian):
        raise UnsupportedEvent(
            f"event {event!r}: Opacus prices Gaussian noise on Poisson samples, for one record "
            "added or removed, and cannot cross-check this; use the accountant alone"
        )
    return None


def refuse_disagreement(epsilon: float, epsilon_rdp: float, agreement: float) -> None:
    """Fail loudly where the cross-checks differ, or where the exact ε is above what they say."""
    if not agreement <= TOLERANCE or epsilon > epsilon_rdp * (1 + TOLERANCE) + 1e-12:
        raise GuaranteeBroken(
            f"epsilon = {epsilon!r}, by Rényi divergences {epsilon_rdp!r}, which differ from "
            f"Opacus's by {agreement:.2e} on equal orders: must be ≤ {TOLERANCE:g} and the exact ε "
            "no larger; the run states no ε: report its ledger"
        )
