"""Rényi's bound on ε from a few orders, where a whole curve of each event is dear."""

from __future__ import annotations

import numpy as np

from accountant.events import Event
from accountant.rdp.accountant import COMMON_ORDERS, RdpAccountant

_SPREAD = 8  # orders looked at in each round, and by how much the next one is finer


def rdp_upper(events: list[tuple[Event, int]], delta: float) -> float:
    """ε at the best of the common orders, found by halving in on it, and beyond their edges.

    With t = α − 1 a Rényi curve's t D is convex, and so is what the conversion adds to it, so that
    ε over the orders falls and then rises. Where a curve is a bound that is not, ε is that of
    another order, which holds as well.

    >>> from accountant.events import Laplace
    >>> events = [(Laplace(noise_multiplier=2.0), 30)]
    >>> rdp_upper(events, 1e-5) == RdpAccountant().compose_all(events).epsilon(1e-5).upper
    True
    """
    first, last = 0, len(COMMON_ORDERS) - 1
    while True:
        numbers = np.unique(np.linspace(first, last, _SPREAD + 1).round().astype(int))
        found = RdpAccountant(COMMON_ORDERS[numbers]).compose_all(events)
        bound = found.epsilon(delta, search=False)
        if not bound.upper < np.inf:
            return _from_below(events, delta)
        best = int(np.searchsorted(COMMON_ORDERS[numbers], bound.order))
        first, last = numbers[max(best - 1, 0)], numbers[min(best + 1, len(numbers) - 1)]
        if last - first <= _SPREAD:
            break
    edges = np.unique([0, *range(first, last + 1), len(COMMON_ORDERS) - 1])
    near = RdpAccountant(COMMON_ORDERS[first : last + 1]).compose_all(events)
    inside = near.epsilon(delta, search=False)
    if inside.order not in (COMMON_ORDERS[0], COMMON_ORDERS[-1]):
        return inside.upper
    return RdpAccountant(COMMON_ORDERS[edges]).compose_all(events).epsilon(delta).upper


def _from_below(events: list[tuple[Event, int]], delta: float) -> float:
    """Where all orders that were looked at have no curve: the least ones, and lower."""
    least = RdpAccountant(COMMON_ORDERS[: _SPREAD + 1]).compose_all(events)
    return least.epsilon(delta).upper
