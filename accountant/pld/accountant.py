"""ε exactly: an interval that provably holds it, as narrow as asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np

from accountant.bounds import DeltaBounds, EpsilonBounds
from accountant.composition import Composer, Composition
from accountant.dominating_pairs.of_events import (
    allocated,
    chance_shown,
    domination,
    gaussian_mu,
    is_free,
    laws_of,
)
from accountant.dominating_pairs.pairs import OUT_OF_REACH
from accountant.errors import check, check_delta
from accountant.events import (
    Event,
    ExponentialMechanism,
    RandomAllocation,
    Relation,
    mechanism,
)
from accountant.gaussian import gaussian_bounds, gaussian_log_delta
from accountant.lattice import OFF, continuous
from accountant.pld.allocations import allocation_bounds, allocation_delta
from accountant.pld.certify import delta_bounds, epsilon_bounds
from accountant.pld.coarsening import coarser
from accountant.pld.inverse import delta_by_inverse
from accountant.pld.one_release import lone_bounds
from accountant.pld.sums import Sum
from accountant.rdp.accountant import RdpAccountant
from accountant.rdp.thinned import rdp_upper
from accountant.truncation import are_truncated, least_epsilon, untruncated

_FAINT = 1e-150  # sensitivity over deviation: its square still is a number


class PldAccountant(Composer):
    """Composes privacy losses exactly.

    * Guarantee: lower ≤ ε ≤ upper for the ε of the worst neighbours at this δ, where the events
      are analysed tightly; the argument is in ``accountant.pld.contour``.
    * Sampling at a fixed size: lower is attained by neighbours, upper holds for all of them, and
      what lies between is not known to be either.
    * More than ``most_events`` distinct noises are told by fewer, the interval wider for it.
    * Composition of adaptively chosen releases is covered [Zhu, Dong, Wang 2022, Theorem 10].

    >>> from accountant.events import Gaussian, PoissonSampled
    >>> step = PoissonSampled(sampling_rate=250/60000, event=Gaussian(noise_multiplier=1.3))
    >>> bounds = PldAccountant().compose(step, 3600).epsilon(delta=1e-5, width=1e-8)
    >>> round(bounds.lower, 7), round(bounds.upper, 7)
    (0.8529795, 0.8529795)
    """

    def __init__(
        self, relation: Relation | None = None, width: float | None = None, most_events: int = 512
    ) -> None:
        check(width is None or 0 < width < math.inf, "width", width, "must be a number > 0")
        self.width, self.most_events = width, most_events
        self._composition = Composition(relation)

    def compose(self, event: Event, count: int = 1) -> Self:
        """Add ``count`` releases of ``event``, in place; returns the accountant itself."""
        self._composition.add(event, count)
        return self

    def copy(self) -> PldAccountant:
        """An independent accountant that has composed the same."""
        twin = PldAccountant(width=self.width, most_events=self.most_events)
        twin._composition = self._composition.copy()
        return twin

    def epsilon(self, delta: float, width: float | None = None) -> EpsilonBounds:
        """The interval that holds ε at δ.

        Args:
            delta: δ in (0, 1).
            width: of the interval, relative to ε; the accountant's own if left out. If that was
                left out too, it is 1e-4 × max(1, ε), or 1e-3 × ε below ε = 0.01. Where doubles
                cannot resolve it, or no worst neighbours are known, the interval comes out wider
                and its ``narrow`` is False.
        """
        check_delta(delta)
        width = self.width if width is None else width
        check(width is None or 0 < width < math.inf, "width", width, "must be a number > 0")
        if are_truncated(self.events):
            lower, upper = self._truncated(delta, width)
        elif self._lattice_releases():
            lower, upper = self._on_lattice(delta, width)
        elif len(self.events) > self.most_events:
            fewer, more = self._coarser()
            lower, upper = fewer.epsilon(delta, width).lower, more.epsilon(delta, width).upper
        else:
            lower, upper = self._interval(delta, _absolute(width))
        narrow = lower == upper or upper - lower <= _absolute(width)(upper) < math.inf
        return EpsilonBounds(lower, upper, narrow)

    def upper(self, delta: float) -> float:
        """The upper end of ``epsilon(delta)`` alone, for less where events are many or of any kind.

        >>> from accountant.events import Gaussian
        >>> accountant = PldAccountant().compose(Gaussian(noise_multiplier=2.0))
        >>> accountant.upper(1e-5) == accountant.epsilon(1e-5).upper
        True
        """
        check_delta(delta)
        if are_truncated(self.events):
            whole, slip = self._whole()
            return least_epsilon(whole.upper, delta, slip)
        if self._lattice_releases():
            return self.epsilon(delta).upper
        if len(self.events) > self.most_events:
            events = coarser(self.events, self.most_events, costlier=True)
            more = PldAccountant(width=self.width, most_events=max(self.most_events, len(events)))
            return more.compose_all(events).upper(delta)
        return self._interval(delta, _absolute(self.width), thinned=True)[1]

    @np.errstate(all="ignore")  # what is no number falls on the safe side
    def _interval(
        self, delta: float, width: Callable[[float], float], *, thinned: bool = False
    ) -> tuple[float, float]:
        kinds = _Kinds(self.events)
        if kinds.revealed > 0:
            return (math.inf if kinds.revealed > delta else 0.0), math.inf
        if kinds.mu is not None:
            return gaussian_bounds(kinds.mu, math.log(delta), 0.0)
        if kinds.alone is not None:
            lower, upper = lone_bounds(kinds.alone, delta)
            if upper < math.inf:
                return lower, upper
        lower = upper = 0.0
        try:
            if kinds.only_allocated is not None:
                lower, upper = allocation_bounds(*kinds.only_allocated, delta)
                return lower, min(upper, _rdp_upper(self.events, delta))
            off = kinds.off
            for above, below in kinds.sums():
                low, high = epsilon_bounds(above, _less(delta, off), width, enough=lower)
                if below is not above:
                    more = min(delta * math.exp(off[1]), 1 - 1e-16)
                    low, _ = epsilon_bounds(below, more, width, enough=lower)
                lower, upper = max(lower, low - 2 * off[1]), max(upper, high + 2 * off[1])
        except OUT_OF_REACH:
            upper = math.inf
        # Noise below a hundredth is out of reach, and Rényi's bound within a few percent; where
        # doubles end, or for the exponential mechanism, it may be the better one.
        if not upper <= 2 * lower or any(
            type(mechanism(e)) is ExponentialMechanism for e, _ in self.events
        ):
            rdp = rdp_upper if thinned else _rdp_upper
            upper = min(upper, rdp(self.events, delta))
        return lower, upper

    @np.errstate(all="ignore")
    def delta(self, epsilon: float, width: float = 1e-4) -> DeltaBounds:
        """The interval that holds δ at ε, of a ``width`` relative to δ."""
        check(not math.isnan(epsilon), "epsilon", epsilon, "must be a number")
        check(0 < width < math.inf, "width", width, "must be a number > 0")
        if epsilon == -math.inf:
            return DeltaBounds(1.0, 1.0)
        if are_truncated(self.events):
            whole, slip = self._whole()
            told, added = whole.delta(epsilon, width), (1 + math.exp(min(epsilon, 700.0))) * slip
            return DeltaBounds(max(told.lower - added, 0.0), min(told.upper + added, 1.0))
        if self._lattice_releases():
            fewer, more, off = self._smooth()
            low = fewer.delta(epsilon + 2 * off, width).lower * math.exp(-off)
            high = more.delta(epsilon - 2 * off, width).upper * math.exp(off)
            return DeltaBounds(low, min(high, 1.0))
        if len(self.events) > self.most_events:
            fewer, more = self._coarser()
            return DeltaBounds(fewer.delta(epsilon, width).lower, more.delta(epsilon, width).upper)
        kinds = _Kinds(self.events)
        if epsilon == math.inf:
            return DeltaBounds(kinds.revealed, kinds.revealed)
        if kinds.revealed > 0:
            return DeltaBounds(kinds.revealed, 1.0)
        if kinds.mu is not None:
            return _gaussian_delta(kinds.mu, epsilon)
        if (alone := kinds.alone) is not None and epsilon >= 0:
            held = delta_by_inverse(lambda d: lone_bounds(alone, d), epsilon, width / 4)
            if held[1] - held[0] <= width * held[1]:
                return DeltaBounds(*held)
        lower = upper = 0.0
        try:
            if kinds.only_allocated is not None:
                lower, upper = allocation_delta(*kinds.only_allocated, epsilon)
                return DeltaBounds(lower, upper)
            lost, off = kinds.off
            for above, below in kinds.sums():
                low, high = delta_bounds(above, epsilon - 2 * off, width)
                if below is not above:
                    low, _ = delta_bounds(below, epsilon + 2 * off, width)
                lower = max(lower, low * math.exp(-off))
                upper = max(upper, min(high * math.exp(off) + lost, 1.0))
        except OUT_OF_REACH:
            upper = 1.0
        if upper == 1 and epsilon >= 0:
            upper = _by_rdp(self.events).delta(epsilon).upper
        if upper > 2 * lower and epsilon >= 0 and kinds.alone is None:
            upper = min(upper, self._total_variation())
        return DeltaBounds(lower, upper)

    def _whole(self) -> tuple[PldAccountant, float]:
        """The same on whole samples, and what truncation may change."""
        events, slip = untruncated(self.events)
        whole = PldAccountant(width=self.width, most_events=self.most_events)
        return whole.compose_all(events), slip

    def _truncated(self, delta: float, width: float | None) -> tuple[float, float]:
        """By ``accountant.truncation``: δ less what it adds, and more of as much."""
        whole, slip = self._whole()
        upper = least_epsilon(lambda d: whole.epsilon(d, width).upper, delta, slip)
        shown = delta + (1 + math.exp(min(upper, 700.0))) * slip
        return whole.epsilon(shown, width).lower if shown < 1 else 0.0, upper

    def _total_variation(self) -> float:
        """δ(0), and so any δ, is at most the sum of what each release has alone."""
        each = ((PldAccountant().compose(event).delta(0.0).upper, n) for event, n in self.events)
        return min(sum(n * alone for alone, n in each) * (1 + 1e-12), 1.0)

    def _on_lattice(self, delta: float, width: float | None) -> tuple[float, float]:
        """By ``accountant.lattice``: the gap between the two is part of the width."""
        fewer, more, off = self._smooth()
        width = (1e-4 if width is None else width) / 4
        upper = more.epsilon(delta * math.exp(-off), width).upper + 2 * off
        raised = delta * math.exp(off)
        lower = fewer.epsilon(raised, width).lower - 2 * off if raised < 1 else 0.0
        return max(lower, 0.0), upper

    def _smooth(self) -> tuple[PldAccountant, PldAccountant, float]:
        """The composition with continuous noise that costs no more, no less, and what is off."""
        told = []
        for costlier in (False, True):
            accountant = PldAccountant(most_events=self.most_events)
            for event, count in self.events:
                accountant.compose(continuous(event, costlier=costlier) or event, count)
            told.append(accountant)
        return told[0], told[1], OFF * self._lattice_releases() * (1 + 1e-9)

    def _lattice_releases(self) -> int:
        """How many are priced by continuous noise in place of discrete."""
        return sum(n for event, n in self.events if continuous(event, costlier=True) is not None)

    def _coarser(self) -> tuple[PldAccountant, PldAccountant]:
        """What costs no more than the composition, and what costs no less, in fewer events."""
        told = []
        for costlier in (False, True):
            events = coarser(self.events, self.most_events, costlier=costlier)
            accountant = PldAccountant(most_events=max(self.most_events, len(events)))
            accountant.compose_all(events)
            told.append(accountant)
        return told[0], told[1]


def _less(delta: float, off: tuple[float, float]) -> float:
    """δ without what was left out, which allocations of little noise may leave nothing of."""
    less = (delta - off[0]) * math.exp(-off[1])
    if less <= 0:
        raise ArithmeticError
    return less


def _by_rdp(events: list[tuple[Event, int]]) -> RdpAccountant:
    return RdpAccountant().compose_all(events)


def _rdp_upper(events: list[tuple[Event, int]], delta: float) -> float:
    return _by_rdp(events).epsilon(delta).upper


def _absolute(width: float | None) -> Callable[[float], float]:
    if width is not None:
        return lambda epsilon: max(width * epsilon, 1e-300)
    return lambda epsilon: max(
        1e-3 * epsilon if epsilon < 0.01 else 1e-4 * max(1.0, epsilon), 1e-300
    )


def _gaussian_delta(mu: float, epsilon: float) -> DeltaBounds:
    nothing = -math.expm1(epsilon) if epsilon < 0 else 0.0
    log_delta, error = gaussian_log_delta(mu, epsilon) if mu else (-math.inf, math.inf)
    if math.isinf(error):  # the total variation distance is below μ/2, and not to be told from 0
        return DeltaBounds(nothing, min(nothing + mu / 2, 1.0))
    low, high = math.exp(min(log_delta - error, 0.0)), math.exp(min(log_delta + error, 0.0))
    return DeltaBounds(min(low, 1.0), min(high * (1 + 1e-15) + 5e-324, 1.0))


class _Kinds:
    """The composition, as neighbours of either kind see it."""

    def __init__(self, events: list[tuple[Event, int]]) -> None:
        self.revealed = -math.expm1(sum(n * _log1p(-chance_shown(event)) for event, n in events))
        heard = [] if self.revealed else [(e, n) for e, n in events if not is_free(e)]
        self.alone = heard[0][0] if len(heard) == 1 and heard[0][1] == 1 else None
        plain = [(mu, n) for event, n in heard if (mu := gaussian_mu(event)) is not None]
        self._mu = math.hypot(*(math.sqrt(n) * mu for mu, n in plain))
        self._rest = [(event, n) for event, n in heard if gaussian_mu(event) is None]

    @property
    def only_allocated(self) -> tuple[RandomAllocation, int] | None:
        """The one kind of allocation that is all there is, with its count."""
        if self._mu or len(self._rest) != 1:
            return None
        event, count = self._rest[0]
        return (event, count) if isinstance(event, RandomAllocation) else None

    @property
    def off(self) -> tuple[float, float]:
        """δ of the outcomes that allocations leave out, and the log of what masses are off by."""
        laws = [laws_of(e, n)[0] for e, n in self._rest if isinstance(e, RandomAllocation)]
        return sum(law.lost for law in laws), sum(law.off for law in laws)

    @property
    def mu(self) -> float | None:
        """Sensitivity over deviation, where all noise is plain Gaussian."""
        return None if self._rest else self._mu

    def sums(self) -> Iterator[tuple[Sum, Sum]]:
        """For each kind the losses that dominate, and those attained."""
        parts = [
            (allocated(event, n), 1)
            if isinstance(event, RandomAllocation)
            else (domination(event), n)
            for event, n in self._rest
        ]
        symmetric = all(part.upper[0] is part.upper[1] for part, _ in parts)
        tight = all(part.upper is part.lower for part, _ in parts)
        variance = least = self._mu * self._mu
        if 0 < self._mu < _FAINT:  # the square underflows
            variance, least, tight = _FAINT**2, 0.0, False
        for kind in (0, 1):
            if kind == 0 or not (symmetric and tight):
                upper = Sum([(part.upper[kind], n) for part, n in parts], variance)
                lower = Sum([(part.lower[kind], n) for part, n in parts], least)
                yield upper, upper if tight else lower


def _log1p(x: float) -> float:
    return math.log1p(x) if x > -1 else -math.inf
