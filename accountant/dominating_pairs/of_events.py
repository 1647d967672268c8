"""The pairs that dominate each event, and the pairs that its worst neighbours attain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from accountant.dominating_pairs.allocation import Law, allocation_laws
from accountant.dominating_pairs.mixture import REACH, Mixture, log_mixture
from accountant.dominating_pairs.pairs import (
    MOST_POINTS,
    Array,
    Complex,
    Curve,
    Pair,
    Panels,
    Points,
    TooFine,
)
from accountant.errors import UnsupportedEvent
from accountant.events import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    Mechanism,
    NoCost,
    PoissonSampled,
    RandomAllocation,
    RandomizedResponse,
    Relation,
    ShuffledEpoch,
    TruncatedPoissonSampled,
)


@dataclass(frozen=True)
class Domination:
    """Pairs for an event whose neighbours come in two kinds, such as record added and removed.

    ``upper`` dominates neighbours of either kind in turn; ``lower`` is attained by actual
    neighbours, so that the truth lies
    between the two. A composition takes the same kind throughout.
    """

    upper: tuple[Pair, Pair]
    lower: tuple[Pair, Pair]


def gaussian_mu(event: Event) -> float | None:
    """Sensitivity over deviation where the event is plain Gaussian noise, else None.

    >>> gaussian_mu(Gaussian(noise_multiplier=2.0))
    0.5
    """
    match event:
        case Gaussian(noise_multiplier=noise) if noise > 0:
            return 1 / noise if noise > 1e-300 else math.inf
        case PoissonSampled(sampling_rate=1, event=Gaussian() as inner) if not chance_shown(inner):
            mu = gaussian_mu(inner)
            return None if mu is None else mu * event.group_size
        case FixedSizeSampled(event=inner) if event.batch_size == event.dataset_size:
            return gaussian_mu(inner)
        case ShuffledEpoch(event=inner):
            return gaussian_mu(inner)
        case RandomAllocation(event=inner) if event.selected == event.steps:
            mu = gaussian_mu(inner)
            return None if mu is None else mu * math.sqrt(event.steps)
    return None


def chance_shown(event: Event) -> float:
    """The probability that the event shows the record beyond any doubt: 0 if there is noise.

    >>> chance_shown(PoissonSampled(sampling_rate=0.1, event=Gaussian(noise_multiplier=0.0)))
    0.1
    """
    match event:
        case Gaussian() | Laplace() | DiscreteGaussian():
            return float(event.noise_multiplier == 0)
        case RandomizedResponse(noise_parameter=p):
            return float(p == 0)
        case ExponentialMechanism(epsilon=epsilon):
            return float(math.isinf(epsilon))
        case NoCost():
            return 0.0
        case PoissonSampled(sampling_rate=q, event=inner):
            return chance_shown(inner) * -math.expm1(event.group_size * _log1p(-q))
        case FixedSizeSampled(event=inner):
            return chance_shown(inner) * event.sampling_rate
        case ShuffledEpoch(event=inner) | RandomAllocation(event=inner):
            return chance_shown(inner)
        case TruncatedPoissonSampled():
            return chance_shown(event.untruncated)


def is_free(event: Event) -> bool:
    """Whether the event says nothing of any record."""
    match event:
        case NoCost() | PoissonSampled(sampling_rate=0) | FixedSizeSampled(batch_size=0):
            return True
        case (
            PoissonSampled(event=inner)
            | FixedSizeSampled(event=inner)
            | ShuffledEpoch(event=inner)
            | RandomAllocation(event=inner)
        ):
            return is_free(inner)
        case TruncatedPoissonSampled():
            return is_free(event.untruncated)
        case Gaussian() | Laplace() | DiscreteGaussian():
            return math.isinf(event.noise_multiplier)
        case RandomizedResponse(noise_parameter=p):
            return p == 1
        case ExponentialMechanism(epsilon=epsilon):
            return epsilon == 0


def _log1p(x: float) -> float:
    return math.log1p(x) if x > -1 else -math.inf


def domination(event: Event) -> Domination:
    """The pairs of ONE release of ``event``."""
    match event:
        case PoissonSampled(
            sampling_rate=q, event=Gaussian(noise_multiplier=noise, relation=Relation.REPLACE_ONE)
        ):  # attained where the replaced record's own vector is zero, half the way
            both = _either_way(q, 1 / noise)
            half = 0.5 / noise
            return Domination((both, both), _both_ways(binomial(1, q), half).lower)
        case PoissonSampled(sampling_rate=q, event=Gaussian(noise_multiplier=noise)):
            k = event.group_size
            return _both_ways(binomial(k, q), 1 / noise)
        case PoissonSampled(sampling_rate=q, event=inner):
            whole = domination(inner)
            if q == 1:
                return whole
            upper = (_sampled(whole.upper[0], q), _sampled(whole.upper[0], q, exchanged=True))
            if whole.lower is whole.upper:
                return Domination(upper, upper)
            lower = (_sampled(whole.lower[0], q), _sampled(whole.lower[0], q, exchanged=True))
            return Domination(upper, lower)
        case FixedSizeSampled(sampling_rate=q, event=Gaussian(noise_multiplier=noise)):
            both = _either_way(q, 1 / noise)
            return Domination((both, both), _both_ways(binomial(1, q), 1 / noise).lower)
        case ShuffledEpoch(event=inner):
            return domination(inner)
        case RandomAllocation():
            return allocated(event, 1)
        case TruncatedPoissonSampled():
            raise UnsupportedEvent(f"event {event!r}: is not one pair; use an accountant")
        case ExponentialMechanism(epsilon=epsilon):
            envelope, two = _bounded_range(epsilon), _randomized_response_of(epsilon / 2)
            return Domination((envelope, envelope), (two, two))
    pair = _pair(event)
    return _exact(pair, pair)


def allocated(event: RandomAllocation, count: int) -> Domination:
    """The pairs of ``count`` allocations, together.

    Of z = x μ + noise, x the 0 and 1 of whether the record is in each release, everything that an
    adaptive run releases is made in turn: the i-th is what the others add, and g_i z_i with |g_i| ≤
    1, which both may depend on all before, and noise that makes up for |g_i| < 1. So these pairs
    dominate, beside whatever else is released between.

    k of t releases cost at most what k allocations of one of ⌊t/k⌋ each do: drawn beforehand, cut k
    disjoint blocks of ⌊t/k⌋ of the steps at random; one of each is a uniform choice of k, δ(ε) of a
    mixture over the blocks is at most their mean, and given them z is that of k allocations side by
    side [Feldman, Shenfeld 2025]. The sum of all is what is attained: Gaussian noise of √t σ on k.
    """
    above, below = laws_of(event, count)
    upper = _exact(_ratios(above, removed=True), _ratios(above, removed=False))
    if event.selected == 1:
        lower = _exact(_ratios(below, removed=True), _ratios(below, removed=False))
    else:
        mu = event.selected * math.sqrt(count / event.steps) / event.event.noise_multiplier
        lower = _both_ways((-math.inf, 0.0), mu)
    return Domination(upper.upper, lower.upper)


def laws_of(event: RandomAllocation, count: int) -> tuple[Law, Law]:
    """The laws of the likelihood ratio of ``count`` allocations: no less, and no more."""
    blocks = event.steps // event.selected
    return allocation_laws(blocks, event.event.noise_multiplier, count * event.selected)


def _ratios(law: Law, *, removed: bool) -> Points:
    """As atoms whose masses add up to one, P's and Q's."""
    log_q, loss = np.log(law.mass / law.mass.sum()), np.log(law.ratio)
    loss -= math.log(float(np.exp(log_q) @ law.ratio))
    kept = (log_q, loss) if removed else (log_q + loss, -loss)
    return Points(lambda _: kept)


def binomial(k: int, q: float) -> tuple[float, ...]:
    """log P(j of k records are in the sample), each with probability q."""
    inside, outside = math.log(q), math.log1p(-q)
    return tuple(math.log(math.comb(k, j)) + j * inside + (k - j) * outside for j in range(k + 1))


def _both_ways(log_weights: tuple[float, ...], spacing: float) -> Domination:
    added = Mixture(log_weights, spacing, exchanged=True)
    return _exact(Mixture(log_weights, spacing), added)


def _exact(removed: Pair, added: Pair) -> Domination:
    pairs = (removed, added)
    return Domination(pairs, pairs)


def _pair(event: Mechanism | NoCost | FixedSizeSampled) -> Panels | Points:
    match event:
        case Laplace(noise_multiplier=noise):
            if noise < 1e-300:  # a loss that is no number
                raise TooFine
            return _laplace(1 / noise)
        case DiscreteGaussian(sensitivity=sensitivity, dimension=1):
            return _discrete_gaussian(event.deviation, int(sensitivity))
        case RandomizedResponse(noise_parameter=p, categories=k):
            return _randomized_response(p, k)
        case ExponentialMechanism(epsilon=epsilon):
            return _bounded_range(epsilon)
        case NoCost():
            return _bounded_range(0.0)
    raise UnsupportedEvent(f"event {event!r}: no privacy-loss analysis; use method rdp")


def _laplace(epsilon: float) -> Panels:
    """Q = Laplace at 0, P at 1: the loss is ±ε outside [0, 1] and linear inside."""

    def inside(loss: Complex) -> tuple[Complex, Complex]:
        return math.log(0.25) - (loss + epsilon) / 2, loss

    atoms = (np.array([math.log(0.5), math.log(0.5) - epsilon]), np.array([-epsilon, epsilon]))
    return Panels((inside,), lambda _: (-epsilon, epsilon), atoms)


def _bounded_range(epsilon: float) -> Panels:
    """The pair of the largest divergence of any ε-bounded-range mechanism, at every ε' at once.

    For |x| ≤ ε that divergence is (1 − exp((x − ε)/2))²/(1 − exp(−ε)), the maximum over t of the
    two-outcome mechanisms with losses t and t − ε [Dong, Durfee, Rogers 2020, Lemma 3.2]; its
    derivative gives the density of the loss under Q, exp(−(x + ε)/2) / (2 (1 − exp(−ε))).
    """
    norm = math.log(2) + math.log(-math.expm1(-epsilon)) if epsilon > 0 else 0.0

    def density(loss: Complex) -> tuple[Complex, Complex]:
        return -(loss + epsilon) / 2 - norm, loss

    none = np.empty(0)
    if epsilon == 0:
        return Panels((), lambda _: (0.0, 0.0), (np.zeros(1), np.zeros(1)))
    return Panels((density,), lambda _: (-epsilon, epsilon), (none, none))


def _randomized_response_of(epsilon: float) -> Points:
    """Two answers of losses ±ε: what an exponential mechanism between two outcomes may give."""
    return _randomized_response(2 / (1 + math.exp(min(epsilon, 700.0))), 2)


def _randomized_response(p: float, k: int) -> Points:
    other = math.log(p) - math.log(k)  # p/k may underflow
    rest = math.log1p(-p) if p < 1 else -math.inf
    loss = math.log1p((1 - p) / (p / k)) if p > 1e-3 else float(np.logaddexp(0.0, rest - other))
    truth = float(np.logaddexp(rest, other))
    log_q = np.array([other, truth] + ([math.log(k - 2) + other] if k > 2 else []))
    losses = np.array([loss, -loss, 0.0][: log_q.size])
    return Points(lambda _: (log_q, losses))


def _discrete_gaussian(sigma: float, shift: int) -> Points:
    """Q at 0 and P at ``shift``, on the integers that matter [Canonne, Kamath, Steinke 2020]."""

    def atoms(tilt: float) -> tuple[Array, Array]:
        margin = math.ceil(REACH * sigma) + 1
        if not margin + tilt * shift <= MOST_POINTS:
            raise TooFine
        j = np.arange(-margin, margin + math.ceil((1 + tilt) * shift) + 1.0)
        norm = np.exp(-0.5 * (np.arange(-margin, margin + 1) / sigma) ** 2).sum()
        return -0.5 * (j / sigma) ** 2 - math.log(norm), shift * (2 * j - shift) / (2 * sigma**2)

    return Points(atoms, bounded=False)


def _sampled(pair: Pair, q: float, *, exchanged: bool = False) -> Panels | Points:
    """Poisson sampling, (1 − q) Q + q P against Q [Zhu, Dong, Wang 2022, Theorem 11]."""

    def mix(log_q: Complex, loss: Complex) -> tuple[Complex, Complex]:
        mixed = log_mixture(loss, 1 - q, q)
        return (log_q + mixed, -mixed) if exchanged else (log_q, mixed)

    if isinstance(pair, Points):
        atoms = pair.atoms
        bounded = pair.bounded or exchanged
        return Points(lambda tilt: mix(*atoms(tilt)), bounded=bounded)

    assert isinstance(pair, Panels)

    def along(curve: Curve) -> Curve:
        return lambda z: mix(*curve(z))

    curves = tuple(along(curve) for curve in pair.curves)
    kept = mix(*pair.atoms)
    return Panels(curves, pair.ends, kept, bounded=pair.bounded, widest=pair.widest)


def _either_way(q: float, spacing: float) -> Panels:
    """One record replaced in a sample: the larger of both directions at every ε, in one pair.

    For ε ≥ 0 the divergence is that of (1 − q) Q + q P against Q, for ε < 0 that of P against
    (1 − q) P + q Q [Balle, Barthe, Gaboardi 2018, Theorems 2 and 9; the former gives the same for
    Poisson samples under replace-one]. So positive losses are distributed
    as in the first, negative ones as in the second, and the rest of the mass is at zero.
    """
    mixture = Mixture(binomial(1, q), spacing)

    def gained(z: Complex) -> tuple[Complex, Complex]:
        return mixture.curve(z)

    def lost(z: Complex) -> tuple[Complex, Complex]:
        log_q, loss = mixture.curve(z)
        return log_q + loss, -loss

    def ends(tilt: float) -> tuple[float, float]:
        return spacing / 2, REACH + (1 + tilt) * spacing

    at_zero = (1 - q) * (1 - 2 * ndtr(-spacing / 2))
    atom = np.array([math.log(at_zero)]) if q < 1 else np.empty(0)
    atoms, widest = (atom, np.zeros(atom.size)), min(0.5, 0.7 / spacing)
    return Panels(
        (gained, lost), ends, atoms, bounded=False, widest=widest, log_beyond=mixture.log_beyond
    )
