"""Target ε → noise, steps, sampling rate or a schedule's scale, for any accountant.

The answer is always on the safe side: what it costs is checked, not assumed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from typing import Protocol

import scipy  # which loads its submodules when they are first used

from accountant.errors import Unreachable, check, check_delta
from accountant.events import Event
from accountant.pld.accountant import PldAccountant

Events = Iterable[tuple[Event, int]]

WIDTH = 5e-7
"""Of the interval that a reported ε is the upper end of, relative to ε."""

_LEAST_NOISE, _MOST_NOISE = 0.02, 1e5  # what a search for noise is confined to
_MOST_STEPS = 2**40
_AS_GOOD_AS_ALL = 1 - 1e-3  # of a budget
_FURTHER = 4.0  # a bracket grows by: little noise is dear to price, so not to be overshot by much


class BudgetNotReached(UserWarning):
    """The costliest value that is looked at costs less than was allowed."""


class Bound(Protocol):
    """What ``epsilon`` of an accountant answers."""

    @property
    def upper(self) -> float: ...


class Accountant(Protocol):
    """What every accountant offers."""

    def compose(self, event: Event, count: int = 1) -> Accountant: ...

    def compose_all(self, events: Iterable[tuple[Event, int]]) -> Accountant: ...

    def epsilon(self, delta: float) -> Bound: ...


def exact(width: float = WIDTH) -> PldAccountant:
    """The exact accountant whose figures are reported: what it calibrates, it prices the same."""
    return PldAccountant(width=width, most_events=128)


def cost(events: Events, delta: float, accountant: Callable[[], Accountant] = exact) -> float:
    """The upper bound on ε of ``events``, by a fresh ``accountant``."""
    fresh = accountant()
    fresh.compose_all(events)
    return fresh.epsilon(delta).upper


def calibrate(
    epsilon: float,
    delta: float,
    events_at: Callable[[float], Events],
    *,
    between: tuple[float, float],
    accountant: Callable[[], Accountant] = exact,
    name: str = "the parameter",
    tolerance: float = 2e-7,
) -> float:
    """The value nearest its end of the range whose run costs at most ``epsilon``.

    Args:
        epsilon: the target, > 0.
        delta: δ in (0, 1).
        events_at: value → the (event, count) pairs of the whole run; its cost must be monotone.
        between: the costliest and the cheapest value to consider, both > 0, in either order of
            size: (least noise, most noise), or (highest rate, lowest rate).
        accountant: makes an empty accountant.
        name: of the parameter, for messages.
        tolerance: relative, of the value.

    Returns:
        A value at which the accountant's upper bound is at most ``epsilon``, within
        ``tolerance`` of one at which it is not, or the costliest value if even that is affordable.

    Warns:
        BudgetNotReached: even the costliest value costs less than ``epsilon``.

    Raises:
        Unreachable: even the cheapest value costs more.

    >>> from accountant import Gaussian
    >>> def one_release(noise):
    ...     return [(Gaussian(noise_multiplier=noise), 1)]
    >>> round(calibrate(1.0, 1e-5, one_release, between=(0.1, 100.0)), 4)
    3.7306
    """
    check(0 < epsilon < math.inf, "epsilon", epsilon, "must be a number > 0")
    check_delta(delta)
    check(min(between) > 0 and max(between) < math.inf, "between", between, "must be > 0")

    def by(accountant: Callable[[], Accountant]) -> Callable[[float], float]:
        return cache(lambda value: cost(events_at(value), delta, accountant) / epsilon)

    start = min(max(1.0, min(between)), max(between))
    spent = by(accountant)
    if accountant is exact:  # a first answer by wide intervals, then a few narrow ones
        roughly = by(PldAccountant)
        value = affordable(roughly, start, between, tolerance=1e-4)
        value = _polished(spent, roughly, value, between, tolerance)
    else:
        value = affordable(spent, start, between, tolerance=tolerance)
    reached = spent(value)
    if reached > 1:
        raise Unreachable(
            f"epsilon = {epsilon:g}: {name} = {value:g} still costs {reached * epsilon:.6g} at "
            f"δ = {delta:g}; raise epsilon to that, or shorten the run"
        )
    if value == between[0] and reached < _AS_GOOD_AS_ALL:
        warnings.warn(
            f"epsilon = {epsilon:g}: is not reached: the search for {name} ends at {value:g}, "
            f"which costs {reached * epsilon:.6g} at δ = {delta:g}; lower epsilon to that",
            BudgetNotReached,
            stacklevel=2,
        )
    return value


def affordable(
    spent: Callable[[float], float],
    start: float,
    between: tuple[float, float],
    *,
    tolerance: float,
    factor: float = _FURTHER,
) -> float:
    """The costliest value with spent(value) ≤ 1, to ``tolerance``, or else the cheapest."""
    costly, cheap = between
    direction = 1 if cheap > costly else -1

    def excess(value: float) -> float:
        return math.log(max(spent(value), 1e-300))

    def move(value: float, ratio: float) -> float:
        return min(max(value * ratio**direction, min(between)), max(between))

    low = high = start
    while excess(high) > 0 and high != cheap:
        low, high, factor = high, move(high, factor), min(factor**2, _FURTHER)
    while excess(low) <= 0 and low != costly:
        low, high, factor = move(low, 1 / factor), low, min(factor**2, _FURTHER)
    if excess(high) > 0 or excess(low) <= 0:
        return high if excess(high) > 0 else low
    first, last = sorted((math.log(low), math.log(high)))
    value = math.exp(
        scipy.optimize.brentq(
            lambda x: excess(_snap(x, low, high)), first, last, xtol=tolerance / 4
        )
    )
    nudge = tolerance / 2
    while excess(value) > 0:
        value, nudge = value * (1 + direction * nudge), 2 * nudge
    return min(value, high) if direction > 0 else max(value, high)


def _polished(
    spent: Callable[[float], float],
    roughly: Callable[[float], float],
    value: float,
    between: tuple[float, float],
    tolerance: float,
) -> float:
    """The costliest affordable value, by secants from one that is nearly so."""
    costly, cheap = between
    apart = value * 0.99 if value * 0.99 >= min(between) else value * 1.01
    last, excess = apart, math.log(max(roughly(apart), 1e-300))
    rough = math.log(max(roughly(value), 1e-300))
    slope = (rough - excess) / math.log(value / last)
    for tried in range(12):
        excess = math.log(max(spent(value), 1e-300))
        margin = (
            tolerance * abs(slope) * 2 ** max(tried - 3, 0)
        )  # where bounds are wide, be content
        if -margin <= excess <= 0 or (excess <= 0 and (value == costly or tried > 3)):
            return value
        if not slope or (excess > 0 and value == cheap):
            break
        step = min(max(-(excess + margin / 2) / slope, -0.5), 0.5)
        value = min(max(value * math.exp(step), min(between)), max(between))
    return affordable(spent, value, between, tolerance=tolerance, factor=1 + 1e-3)


def _snap(log_value: float, *known: float) -> float:
    """exp, but the very ends it came from, whose cost is known."""
    return next((end for end in known if math.log(end) == log_value), math.exp(log_value))


def calibrate_noise(
    epsilon: float,
    delta: float,
    events_at: Callable[[float], Events],
    *,
    accountant: Callable[[], Accountant] = exact,
    tolerance: float = 2e-7,
) -> float:
    """The least noise, or scale of a noise schedule, whose run costs at most ``epsilon``.

    >>> from accountant import dpsgd_event
    >>> def run(noise):
    ...     return [(dpsgd_event(dataset_size=60000, batch_size=250, noise_multiplier=noise), 3600)]
    >>> round(calibrate_noise(1.0, 1e-5, run), 6)  # an RDP accountant asks for 1.2489
    1.175309
    """
    between = (_LEAST_NOISE, _MOST_NOISE)
    return calibrate(
        epsilon,
        delta,
        events_at,
        between=between,
        accountant=accountant,
        name="a noise multiplier",
        tolerance=tolerance,
    )


def calibrate_sampling_rate(
    epsilon: float,
    delta: float,
    events_at: Callable[[float], Events],
    *,
    accountant: Callable[[], Accountant] = exact,
    tolerance: float = 2e-7,
) -> float:
    """The highest sampling rate whose run costs at most ``epsilon``.

    >>> from accountant import Gaussian, PoissonSampled
    >>> def run(rate):
    ...     return [(PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=1.0)), 100)]
    >>> round(calibrate_sampling_rate(1.0, 1e-6, run), 5)
    0.01053
    """
    return calibrate(
        epsilon,
        delta,
        events_at,
        between=(1.0, 1e-12),
        accountant=accountant,
        name="a sampling rate",
        tolerance=tolerance,
    )


def calibrate_steps(
    epsilon: float,
    delta: float,
    event: Event,
    *,
    accountant: Callable[[], Accountant] = exact,
) -> int:
    """The most releases of ``event`` that cost at most ``epsilon``.

    >>> from accountant import Gaussian, PoissonSampled
    >>> step = PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=3.0))
    >>> calibrate_steps(2.0, 1e-6, step)
    155
    """
    check(0 < epsilon < math.inf, "epsilon", epsilon, "must be a number > 0")
    check_delta(delta)

    def spent(count: int) -> float:
        return cost([(event, count)], delta, accountant)

    if spent(1) > epsilon:
        raise Unreachable(
            f"epsilon = {epsilon:g}: one step costs {spent(1):.6g} at δ = {delta:g}; "
            "raise epsilon to that, or add noise"
        )
    low, high = 1, 2
    while spent(high) <= epsilon:
        low, high = high, 2 * high
        if high > _MOST_STEPS:
            raise Unreachable(f"epsilon = {epsilon:g}: is not spent within 2^40 steps; lower it")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= epsilon else (low, middle)
    return low
