"""The ways to an ε, by name, for the command line and for comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accountant.bounds import EpsilonBounds, RdpBound
from accountant.calibration import WIDTH, Accountant, exact
from accountant.errors import check
from accountant.events import Event
from accountant.gdp import gdp_epsilon
from accountant.rdp.accountant import RdpAccountant

METHODS = {
    "exact": "an interval that provably holds ε; its upper end is the ε to report",
    "rdp": "Rényi curve with the improved conversion: an upper bound",
    "rdp-classic": "Rényi curve with the classic conversion: an upper bound",
    "gdp": "central limit theorem: an estimate, often below the truth, not to be reported",
}


def epsilon_by(
    method: str, events: list[tuple[Event, int]], delta: float, width: float | None = None
) -> EpsilonBounds | RdpBound | float:
    """ε by one method: an interval, a bound with its order, or an estimate.

    >>> from accountant import Gaussian
    >>> epsilon_by("rdp", [(Gaussian(noise_multiplier=5.0), 1)], 1e-5).order
    22.0
    """
    check(method in METHODS, "method", method, f"must be one of {', '.join(METHODS)}")
    if method == "gdp":
        return gdp_epsilon(events, delta)
    accountant = exact(width or WIDTH) if method == "exact" else RdpAccountant(method=method)
    accountant.compose_all(events)
    return accountant.epsilon(delta)


def accountant_of(method: str) -> Callable[[], Accountant]:
    """What makes an accountant to calibrate by."""
    proper = ", ".join(name for name in METHODS if name != "gdp")
    check(method in METHODS and method != "gdp", "method", method, f"must be one of {proper}")
    return exact if method == "exact" else lambda: RdpAccountant(method=method)


def as_json(answer: EpsilonBounds | RdpBound | float) -> dict[str, Any]:
    """``epsilon`` and what came with it, with null for ∞ and NaN.

    >>> as_json(EpsilonBounds(1.0, 1.5))
    {'epsilon': 1.5, 'lower': 1.0, 'upper': 1.5}
    """
    match answer:
        case EpsilonBounds(lower=lower, upper=upper):
            fields = {"epsilon": upper, "lower": lower, "upper": upper}
        case RdpBound(upper=upper, order=order):
            fields = {"epsilon": upper, "order": order}
        case _:
            fields = {"epsilon": answer}
    return {name: value if abs(value) < float("inf") else None for name, value in fields.items()}
