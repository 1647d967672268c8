r"""Truncated Poisson samples, priced as Poisson samples and what the truncation adds to δ.

Let η = P(Binomial(n, q) > M), for the n records that are there at most. Draw both samples from
the same coins: a run M' of truncated samples and the run M of whole ones differ with a probability
of at most s, the sum of η over its releases, adaptively chosen ones too, on either neighbour. So

    P(M'(D) ∈ E) ≤ P(M(D) ∈ E) + s ≤ exp(ε) (P(M'(D') ∈ E) + s) + δ(ε) + s,
    δ'(ε) ≤ δ(ε) + (1 + exp(ε)) s,  and likewise  δ'(ε) ≥ δ(ε) − (1 + exp(ε)) s

[Chua et al. 2024, "Scalable DP-SGD: Shuffling vs. Poisson Subsampling"]. Whichever
records of a larger sample are kept, it holds, and for other releases composed with these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from accountant.errors import UnsupportedEvent
from accountant.events import Event, TruncatedPoissonSampled

_EPS = 2.0**-52


def untruncated(events: Iterable[tuple[Event, int]]) -> tuple[list[tuple[Event, int]], float]:
    """The same releases on whole samples, and the sum s of what truncation may change.

    >>> from accountant.events import Gaussian
    >>> step = TruncatedPoissonSampled(sampling_rate=0.5, dataset_size=3, most=2,
    ...                                event=Gaussian(noise_multiplier=1.0))
    >>> whole, slip = untruncated([(step, 4)])
    >>> whole[0][0], round(slip, 6)
    (PoissonSampled(sampling_rate=0.5, event=Gaussian(noise_multiplier=1.0)), 0.5)
    """
    whole: list[tuple[Event, int]] = []
    slip = 0.0
    for event, count in events:
        if isinstance(event, TruncatedPoissonSampled):
            slip += count * binomial_tail(event.dataset_size, event.sampling_rate, event.most)
            whole.append((event.untruncated, count))
        else:
            whole.append((event, count))
    return whole, slip * (1 + 1e-12)


def are_truncated(events: Iterable[tuple[Event, int]]) -> bool:
    """Whether any release was on a truncated sample."""
    return any(isinstance(event, TruncatedPoissonSampled) for event, _ in events)


def binomial_tail(n: int, q: float, most: int) -> float:
    """P(Binomial(n, q) > most), rounded up.

    From k = most + 1 on each term is at most r = (n − k) q / ((k + 1)(1 − q)) of the one before:
    they are added, and the rest of the series is bounded by a geometric one.

    >>> binomial_tail(3, 0.5, 2), binomial_tail(3, 0.5, 3)
    (0.125..., 0.0)
    """
    if most >= n or q == 0:
        return 0.0
    if q >= 1 or most + 1 <= n * q:  # no tail: the middle of it
        return 1.0
    k = most + 1
    parts = [math.lgamma(n + 1), math.lgamma(k + 1), math.lgamma(n - k + 1)]
    parts += [k * math.log(q), (n - k) * math.log1p(-q)]
    log_first = parts[0] - parts[1] - parts[2] + parts[3] + parts[4]
    log_first += 16 * _EPS * sum(abs(part) for part in parts)
    total, term, odds = 0.0, 1.0, q / (1 - q)
    while k < n:
        total += term
        ratio = (n - k) / (k + 1) * odds
        term, k = term * ratio, k + 1
        if ratio < 1 and term < 1e-6 * total:
            return _up(log_first, total + term / (1 - ratio))
    return _up(log_first, total + term)


def _up(log_first: float, total: float) -> float:
    return min(math.exp(min(log_first + math.log(total), 0.0)) * (1 + 1e-9), 1.0)


def least_epsilon(epsilon_at: Callable[[float], float], delta: float, slip: float) -> float:
    """An ε with δ(ε) + (1 + exp(ε)) s ≤ δ, near the least; ∞ where none was found.

    ``epsilon_at`` gives, for a δ, an ε at which whole samples have no more. At e = epsilon_at(δ −
    (1 + exp(c)) s) the sum is at most δ wherever e ≤ c.
    """
    if not slip:
        return epsilon_at(delta)
    guess = epsilon_at(delta)
    for _ in range(60):
        if not guess < 700 or (left := delta - (1 + math.exp(guess)) * slip) <= 0:
            return math.inf
        found = epsilon_at(left)
        if found <= guess:
            return found
        guess = found + 1e-3 * (found - guess) + 1e-12
    return math.inf


def refuse_truncated(event: Event) -> None:
    """Refuse what asks for a curve of its own: truncation costs δ, not a Rényi divergence.

    Raises:
        UnsupportedEvent: the event is on a truncated sample.
    """
    if isinstance(event, TruncatedPoissonSampled):
        raise UnsupportedEvent(
            f"event {event!r}: truncation is charged as δ and has no Rényi curve; use an "
            "accountant, which prices the whole sample and adds it"
        )
