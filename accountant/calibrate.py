"""Target ε → noise, for any accountant: the answer is always on the safe side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from scipy import optimize

from accountant.errors import Unreachable, check, check_delta
from accountant.events import Event
from accountant.rdp import RdpAccountant

_LOWEST, _HIGHEST = 0.02, 1e5  # noise multipliers the search is confined to


def calibrate_noise(
    epsilon: float,
    delta: float,
    events_at: Callable[[float], Iterable[tuple[Event, int]]],
    *,
    method: str = "rdp",
    tolerance: float = 1e-7,
) -> float:
    """The least noise, to a relative ``tolerance``, whose ε does not pass ``epsilon``.

    Args:
        epsilon: the target, > 0.
        delta: δ in (0, 1).
        events_at: scale → the (event, count) pairs of the whole run at that noise; more scale
            must never cost more. For a schedule, the scale multiplies its every step.
        method: conversion, ``"rdp"`` or ``"rdp-classic"``.

    Returns:
        A scale at which the accountant's ε is at most ``epsilon``: checked, not assumed.

    Raises:
        Unreachable: no scale up to 1e5 is enough.

    >>> from accountant.dpsgd import dpsgd_event
    >>> def run(noise):
    ...     return [(dpsgd_event(dataset_size=60000, batch_size=250, noise_multiplier=noise), 3600)]
    >>> round(calibrate_noise(0.9422002, 1e-5, run), 4)
    1.3
    """
    check(0 < epsilon < math.inf, "epsilon", epsilon, "must be a number > 0")
    check_delta(delta)

    def spent(scale: float) -> float:
        accountant = RdpAccountant()
        for event, count in events_at(scale):
            accountant.compose(event, count)
        return accountant.epsilon(delta, method).upper

    low = high = 1.0
    while spent(high) > epsilon:
        low, high = high, min(4 * high, _HIGHEST)
        if low == high:
            raise Unreachable(
                f"epsilon = {epsilon:g}: a noise multiplier of {low:g} still costs "
                f"{spent(low):.6g} at δ = {delta:g}; raise epsilon, or lower steps or batch size"
            )
    while low == high or (spent(low) <= epsilon and low > _LOWEST):
        low, high = max(low / 4, _LOWEST), low
    if spent(low) <= epsilon:
        return low

    def excess(log_scale: float) -> float:
        return math.log(max(spent(math.exp(log_scale)), 1e-300) / epsilon)

    scale = math.exp(optimize.brentq(excess, math.log(low), math.log(high), xtol=tolerance / 4))
    nudge = tolerance / 2
    while spent(scale) > epsilon:
        scale, nudge = scale * (1 + nudge), 2 * nudge
    return min(scale, high)
