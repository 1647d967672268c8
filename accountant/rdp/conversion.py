"""Rényi curve → (ε, δ): any order gives a valid ε, so the smallest over the orders holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def classic(orders: Array, rdp: Array, delta: float) -> Array:
    """ε at each order, rdp + log(1/δ)/(α − 1) [Mironov 2017, Prop. 3].

    >>> classic(np.array([11.0]), np.array([0.5]), 1e-5).round(6)
    array([1.651293])
    """
    return np.maximum(rdp - np.log(delta) / (orders - 1), 0.0)


def classic_log_delta(orders: Array, rdp: Array, epsilon: float) -> Array:
    """The log δ at which ``classic`` gives ε."""
    return np.asarray((orders - 1) * (rdp - epsilon))


def improved(orders: Array, rdp: Array, delta: float) -> Array:
    """ε at each order [Canonne, Kamath, Steinke 2020, Prop. 12; Balle et al. 2020, Thm. 21].

    rdp + log(1 − 1/α) − (log δ + log α)/(α − 1); where that is negative, ε = 0 holds, since
    δ(ε) never rises with ε.

    >>> improved(np.array([11.0]), np.array([0.5]), 1e-5).round(6)
    array([1.316193])
    """
    epsilon = rdp + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    return np.maximum(epsilon, 0.0)


def improved_log_delta(orders: Array, rdp: Array, epsilon: float) -> Array:
    """The log δ at which ``improved`` gives ε."""
    return np.asarray((orders - 1) * (rdp - epsilon + np.log1p(-1 / orders)) - np.log(orders))


CONVERSIONS: dict[str, Callable[[Array, Array, float], Array]] = {
    "rdp": improved,
    "rdp-classic": classic,
}
LOG_DELTAS: dict[str, Callable[[Array, Array, float], Array]] = {
    "rdp": improved_log_delta,
    "rdp-classic": classic_log_delta,
}
