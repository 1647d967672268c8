"""ε and δ of random allocations and nothing else, from the law of their likelihood ratio."""

from __future__ import annotations

import math
from collections.abc import Callable

from accountant.dominating_pairs.of_events import gaussian_mu, laws_of
from accountant.events import RandomAllocation
from accountant.gaussian import gaussian_bounds, gaussian_log_delta


def allocation_bounds(event: RandomAllocation, count: int, delta: float) -> tuple[float, float]:
    """lower ≤ ε ≤ upper of so many allocations.

    >>> from accountant.events import Gaussian
    >>> epoch = RandomAllocation(steps=10, event=Gaussian(noise_multiplier=2.0))
    >>> [round(end, 3) for end in allocation_bounds(epoch, 1, 1e-5)]
    [0.622, 0.622]
    """
    above, below = laws_of(event, count)
    left = delta * math.exp(-above.off) - above.lost
    upper = math.inf
    if left > 0:
        upper = _where(lambda epsilon: above.delta(epsilon) <= left, side=1) + 2 * above.off
    more = delta * math.exp(below.off)
    if event.selected > 1:
        lower = gaussian_bounds(_sum_mu(event, count), math.log(delta), 0.0)[0]
    else:
        lower = _where(lambda epsilon: below.delta(epsilon) <= more, side=0) - 2 * below.off
    return max(lower, 0.0), upper


def allocation_delta(event: RandomAllocation, count: int, epsilon: float) -> tuple[float, float]:
    """lower ≤ δ ≤ upper of so many allocations."""
    above, below = laws_of(event, count)
    upper = above.delta(epsilon - 2 * above.off) * math.exp(above.off) + above.lost
    if event.selected > 1:
        log_delta, error = gaussian_log_delta(_sum_mu(event, count), epsilon)
        lower = math.exp(min(log_delta - error, 0.0))
    else:
        lower = below.delta(epsilon + 2 * below.off) * math.exp(-below.off)
    return min(lower, 1.0), min(upper, 1.0)


def _sum_mu(event: RandomAllocation, count: int) -> float:
    """Sensitivity over deviation of the sum of all releases of all allocations."""
    mu = gaussian_mu(event.event)
    assert mu is not None
    return mu * event.selected * math.sqrt(count / event.steps)


def _where(holds: Callable[[float], bool], *, side: int) -> float:
    """Where it begins to hold, from above (side 1) or below (side 0)."""
    if holds(0.0):
        return 0.0
    ends = [0.0, 1.0]
    while not holds(ends[1]):
        ends = [ends[1], 2 * ends[1]]
        if ends[1] > 1000:
            return ends[1] if side == 0 else math.inf
    for _ in range(60):
        middle = (ends[0] + ends[1]) / 2
        ends[holds(middle)] = middle
    return ends[side]
