"""Rényi curve of each event: what ONE release costs, at real orders."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from accountant.dominating_pairs.mixture import Mixture
from accountant.dominating_pairs.of_events import chance_shown, domination, is_free
from accountant.dominating_pairs.pairs import OUT_OF_REACH, Nodes, Pair, TooFine, log_moment
from accountant.events import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PoissonSampled,
    RandomAllocation,
    Relation,
    ShuffledEpoch,
)
from accountant.lattice import OFF, continuous
from accountant.rdp.allocation import rdp_allocation
from accountant.rdp.fixed_size import rdp_fixed_size_gaussian
from accountant.rdp.sampled_gaussian import (
    check_orders,
    rdp_gaussian,
    rdp_poisson_sampled_gaussian,
)
from accountant.truncation import refuse_truncated

Array = NDArray[np.float64]

_ROUNDING = 2e-13  # above the error of ``pairs.log_moment``
_WIDE = 60.0  # deviations between the two ends of an integral that is worth its points


def renyi_divergence(event: Event, orders: ArrayLike) -> Array:
    """The Rényi curve of ONE release of ``event``, at each order, for its worst neighbours.

    Of k of t releases that of k allocations of one of ⌊t/k⌋ (``accountant.rdp.allocation``).

    Args:
        event: what was released.
        orders: any shape, each a real number > 1.

    Returns:
        Divergences in nats, of the shape of ``orders``; never negative, never below the truth.

    >>> renyi_divergence(Gaussian(noise_multiplier=2.0), [8.0, 16.0])
    array([1., 2.])
    """
    orders = check_orders(orders)
    refuse_truncated(event)
    smooth = continuous(event, costlier=True)
    if smooth is not None and not isinstance(event, DiscreteGaussian):
        # ∫ P^α Q^(1−α) changes by a factor of at most exp((2α − 1) OFF)
        return renyi_divergence(smooth, orders) + OFF * (2 * orders - 1) / (orders - 1)
    match event:
        case Gaussian(noise_multiplier=noise):
            return rdp_gaussian(noise, orders)
        case DiscreteGaussian(noise_multiplier=noise, dimension=d) if (
            noise < 0.01 or noise > 3 or d > 1 or smooth is not None
        ):
            # never more than the continuous one, and equal to 33 digits [CKS 2020, Prop. 5]
            return rdp_gaussian(noise, orders)
        case PoissonSampled(sampling_rate=1, event=Gaussian(noise_multiplier=noise)):
            return rdp_gaussian(noise / event.group_size, orders)
        case PoissonSampled(sampling_rate=1, event=inner):
            return renyi_divergence(inner, orders)
        case PoissonSampled(
            sampling_rate=q,
            event=Gaussian(noise_multiplier=noise, relation=Relation.ADD_OR_REMOVE_ONE),
            group_size=1,
        ):
            return rdp_poisson_sampled_gaussian(q, noise, orders)
        case FixedSizeSampled(sampling_rate=q, event=Gaussian(noise_multiplier=noise)):
            return rdp_fixed_size_gaussian(q, noise, orders)
        case Laplace(noise_multiplier=noise) if 0 < noise < 0.01:
            return _strong_laplace(1 / noise, orders)
        case ShuffledEpoch(event=inner):
            return renyi_divergence(inner, orders)
        case RandomAllocation(steps=t, selected=k, event=Gaussian(noise_multiplier=noise)) if (
            0 < noise < math.inf
        ):
            return np.asarray(k * rdp_allocation(t // k, noise, orders))
    if chance_shown(event):
        return np.full(orders.shape, math.inf)
    if is_free(event):
        return np.zeros(orders.shape)
    if isinstance(event, ExponentialMechanism):
        curve = [_bounded_range(event.epsilon, order) for order in orders.ravel()]
    else:
        curve = _of_pairs(event, orders)
    values = np.array(curve).reshape(orders.shape) * (1 + _ROUNDING)
    values = np.where(np.isnan(values), math.inf, values)  # where doubles end
    if isinstance(event, PoissonSampled) and event.relation is Relation.ADD_OR_REMOVE_ONE:
        whole = replace(event, sampling_rate=1.0)
        values = np.minimum(values, renyi_divergence(whole, orders))
    return np.asarray(values)


def _of_pairs(event: Event, orders: Array) -> list[float]:
    """By the pairs that dominate the event; ∞ where doubles end."""
    try:
        one, other = domination(event).upper
        pairs = (one,) if one is other else (one, other)
        with np.errstate(all="ignore"):
            return [max(_of_pair(pair, order) for pair in pairs) for order in orders.ravel()]
    except OUT_OF_REACH:
        return [math.inf] * orders.size


def _strong_laplace(epsilon: float, orders: Array) -> Array:
    """log{α/(2α−1) exp((α−1)ε) + …}/(α−1) [Mironov 2017, Prop. 6], the rest below exp(−ε)."""
    curve = epsilon + np.log(orders / (2 * orders - 1)) / (orders - 1) + math.exp(-epsilon)
    return np.asarray(np.minimum(curve, epsilon))


def _of_pair(pair: Pair, order: float) -> float:
    """log E_P[exp((α − 1) L)] / (α − 1), by the points the pair is handed on as.

    For a group whose integral would take too many points, by Minkowski's inequality in L^α, or by
    that of the means in the other direction.
    """
    if isinstance(pair, Mixture) and pair.spacing * pair.most * order > _WIDE:
        return _mixture_bound(pair, order)
    try:
        nodes = pair.nodes(order - 1, 0.0)
    except TooFine:
        return math.inf
    curve = max(log_moment(nodes, order - 1), 0.0) / (order - 1)
    return min(curve, float(nodes.loss.max()))


def _mixture_bound(pair: Mixture, order: float) -> float:
    j, log_b = np.arange(pair.most + 1), np.array(pair.log_weights)
    square = (j * pair.spacing) ** 2 / 2
    if not pair.exchanged:
        return float(order / (order - 1) * logsumexp(log_b + (order - 1) * square))
    mean = float(np.exp(log_b) @ j) * pair.spacing
    return (order - 1) * mean**2 / 2 + float(np.exp(log_b) @ square)


def _bounded_range(epsilon: float, order: float) -> float:
    """The largest divergence of an ε-bounded-range mechanism [Dong, Durfee, Rogers 2020].

    The worst has two outcomes, of losses t and t − ε (Lemma 3.2 there); with
    A = (1 − exp(−(α−1)ε))/(1 − exp(−ε)) and B = exp(−(α−1)ε), the moment of order α − 1 is
    exp((α−1)t) (A (1 − exp(t − ε)) + B), largest at exp(t − ε) = (1 − 1/α)(1 + B/A).
    """
    if epsilon > 500:
        return epsilon
    if order * epsilon < 1e-6:  # ε²/8-zCDP [Cesar, Rogers 2021, Lemma 3.2]
        return order * epsilon * epsilon / 8
    b = math.exp(-(order - 1) * epsilon)
    a = -math.expm1(-(order - 1) * epsilon) / -math.expm1(-epsilon)
    t = epsilon + math.log1p(-1 / order) + math.log1p(b / a)
    high = -math.expm1(t - epsilon) / -math.expm1(-epsilon)  # P's mass at loss t
    log_q = np.array([math.log(high) - t, math.log1p(-high) - (t - epsilon)])
    moment = log_moment(Nodes(log_q, np.array([t, t - epsilon])), order - 1)
    return max(moment, 0.0) / (order - 1)
