"""The accountant that adds up Rényi curves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accountant.bounds import DeltaBounds, RdpBound
from accountant.composition import Composer, Composition
from accountant.errors import check, check_delta
from accountant.events import Event, Relation, TruncatedPoissonSampled
from accountant.rdp.conversion import CONVERSIONS, LOG_DELTAS
from accountant.rdp.curves import renyi_divergence
from accountant.rdp.sampled_gaussian import check_orders
from accountant.truncation import least_epsilon, refuse_truncated, untruncated

Array = NDArray[np.float64]

COMMON_ORDERS: Array = np.concatenate([np.arange(11, 110) / 10, np.arange(12.0, 64.0)])
"""The orders most accountants share: 1.1 to 10.9 by 0.1, then 12 to 63."""

_LOWEST, _HIGHEST = 1e-5, 1e5  # α − 1 where the search beyond the grid gives up


class RdpAccountant(Composer):
    """Adds up Rényi curves and converts the sum to ε.

    Of truncated samples the curve is that of whole ones; what truncation adds to δ is taken off
    before the conversion.

    * Guarantee: for every δ, what was composed is (upper, δ)-DP under ``relation``.
    * Composition of adaptively chosen releases is covered [Mironov 2017, Prop. 1].

    >>> from accountant.events import Gaussian, PoissonSampled
    >>> step = PoissonSampled(sampling_rate=250/60000, event=Gaussian(noise_multiplier=1.3))
    >>> bound = RdpAccountant().compose(step, 3600).epsilon(delta=1e-5)
    >>> round(bound.upper, 7), float(bound.order)
    (0.9422002, 17.0)
    """

    def __init__(
        self,
        orders: ArrayLike = COMMON_ORDERS,
        relation: Relation | None = None,
        method: str = "rdp",
    ) -> None:
        check(method in CONVERSIONS, "method", method, f"must be one of {', '.join(CONVERSIONS)}")
        self.method = method
        self.orders = np.sort(np.atleast_1d(check_orders(orders)))
        self._composition = Composition(relation)
        # Runs of one event are priced by multiplication, so that a long run rounds once.
        self._closed = np.zeros(self.orders.shape)
        self._open: tuple[Event | None, int, Array] = (None, 0, self._closed)

    def compose(self, event: Event, count: int = 1) -> Self:
        """Add ``count`` releases of ``event``, in place; returns the accountant itself."""
        self._composition.add(event, count)
        if count:
            last, so_far, curve = self._open
            if event != last:
                self._closed = self._rdp()
                so_far, curve = 0, _curve(_whole(event), tuple(self.orders))
            self._open = (event, so_far + int(count), curve)
        return self

    def copy(self) -> RdpAccountant:
        """An independent accountant that has composed the same."""
        twin = copy.copy(self)  # the arrays are shared: none is ever written in place
        twin._composition = self._composition.copy()
        return twin

    def rdp(self, orders: ArrayLike | None = None) -> Array:
        """The composed Rényi curve, at the accountant's own orders unless others are given.

        Raises:
            UnsupportedEvent: a truncated sample is in it, which has none.
        """
        for event, _ in self.events:
            refuse_truncated(event)
        return self._rdp(orders)

    @np.errstate(over="ignore")
    def _rdp(self, orders: ArrayLike | None = None) -> Array:
        """The same, of whole samples."""
        if orders is not None:
            curves = [n * renyi_divergence(_whole(event), orders) for event, n in self.events]
            return np.sum(curves, axis=0) if curves else np.zeros(np.shape(orders))
        _, count, curve = self._open
        return self._closed + count * curve if count else self._closed

    def epsilon(self, delta: float, method: str | None = None, *, search: bool = True) -> RdpBound:
        """The smallest ε over the orders.

        Args:
            delta: δ in (0, 1).
            method: ``"rdp"`` (improved conversion) or ``"rdp-classic"``; the accountant's own if
                left out.
            search: where the best order is at an edge of the grid, look beyond it.
        """
        method = method or self.method
        check_delta(delta)
        check(method in CONVERSIONS, "method", method, f"must be one of {', '.join(CONVERSIONS)}")
        if not self.events:
            return RdpBound(0.0, float(self.orders[-1]))
        if slip := untruncated(self.events)[1]:
            plain = RdpAccountant(self.orders, method=method)
            plain.compose_all(untruncated(self.events)[0])
            upper = least_epsilon(lambda d: plain.epsilon(d, search=search).upper, delta, slip)
            left = delta - (1 + math.exp(min(upper, 700.0))) * slip
            order = plain.epsilon(left, search=search).order if left > 0 else math.nan
            return RdpBound(upper, order)
        convert = CONVERSIONS[method]
        values = convert(self.orders, self._rdp(), delta)
        best = int(np.argmin(values))
        bound = RdpBound(float(values[best]), float(self.orders[best]))
        if math.isinf(bound.upper):
            return RdpBound(math.inf, math.nan)
        if search and bound.upper > 0 and best in (0, self.orders.size - 1):
            outward = 0.5 if best == 0 else 2.0
            return _search(lambda a: convert(a, self._rdp(a), delta), bound, outward)
        return bound

    def delta(self, epsilon: float, method: str | None = None) -> DeltaBounds:
        """An upper bound on δ at ε, the smallest over the orders.

        >>> from accountant.events import Gaussian
        >>> accountant = RdpAccountant().compose(Gaussian(noise_multiplier=5.0))
        >>> f"{accountant.delta(accountant.epsilon(1e-5).upper).upper:.3g}"
        '1e-05'
        """
        check(epsilon >= 0, "epsilon", epsilon, "must be ≥ 0")
        if not self.events or epsilon == math.inf:
            return DeltaBounds(0.0, 0.0)
        log_delta = LOG_DELTAS[method or self.method](self.orders, self._rdp(), epsilon)
        least = min(float(log_delta.min()), 0.0)
        if slip := untruncated(self.events)[1]:
            added = (1 + math.exp(min(epsilon, 700.0))) * slip
            return DeltaBounds(0.0, min(math.exp(least) + added, 1.0))
        return DeltaBounds(0.0, math.exp(least) or (5e-324 if least > -math.inf else 0.0))


def _whole(event: Event) -> Event:
    return event.untruncated if isinstance(event, TruncatedPoissonSampled) else event


def _search(epsilon_at: Callable[[Array], Array], edge: RdpBound, outward: float) -> RdpBound:
    """Walk α − 1 outward by factors while ε falls, then refine: any order is a valid one."""
    less, value = edge.order - 1, edge.upper
    while True:
        beyond = less * outward ** np.arange(1.0, 5.0)
        beyond = beyond[(beyond > _LOWEST) & (beyond < _HIGHEST)]
        values = epsilon_at(1 + beyond) if beyond.size else np.array([math.inf])
        best = int(np.argmin(values))
        if values[best] >= value:
            break
        less, value = beyond[best], values[best]
    for refinement in range(5):
        near = less * outward ** (np.linspace(-1, 1, 9) / 4**refinement)
        values = epsilon_at(1 + near)
        best = int(np.argmin(values))
        if values[best] < value:
            less, value = near[best], values[best]
    beyond_grid = less < edge.order - 1 if outward < 1 else less > edge.order - 1
    return RdpBound(float(value), float(1 + less), bool(beyond_grid))


@lru_cache(maxsize=4096)
def _curve(event: Event, orders: tuple[float, ...]) -> Array:
    curve = renyi_divergence(event, np.array(orders))
    curve.setflags(write=False)
    return curve
