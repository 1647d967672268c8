"""A few releases that hardly ever see the record: one of them makes the loss, or none does."""

from __future__ import annotations

import math

import numpy as np

from accountant.dominating_pairs.mixture import Mixture
from accountant.dominating_pairs.pairs import where_tail_falls_to
from accountant.gaussian import gaussian_bounds

_EPS = float(np.finfo(np.float64).eps)
_SHARE = 1e-6  # of δ: what two of them may weigh together


def amplified(q: float, mu: float, log_delta: float, off: float) -> tuple[float, float]:
    """lower ≤ ε ≤ upper of one Gaussian release on a Poisson sample, from the unsampled one."""
    log_q = math.log(q)
    off += 2 * _EPS * (1 + abs(log_delta) + abs(log_q))
    lower, upper = gaussian_bounds(mu, log_delta - log_q, off)
    slack = 8 * _EPS * (1 + abs(log_q))  # q may come from its logarithm
    return mixed(q, lower) * (1 - slack), mixed(q, upper) * (1 + slack)


def mixed(q: float, epsilon: float) -> float:
    """log(1 + q (exp(ε) − 1)), to within 8 units of the last place."""
    if epsilon < 700:
        return math.log1p(q * math.expm1(epsilon))
    return float(np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, epsilon + math.log(q)))


def rare_bounds(pair: Mixture, count: int, delta: float) -> tuple[float, float]:
    r"""lower ≤ ε ≤ upper for n ≥ 2 releases of loss L(z) each, rising with the outcome z.

    With p = P(z > c) and δ₁ = p − exp(ε) Q(z > c) at the c of loss ε, whether any outcome is
    above c tells at least

        δ(ε) ≥ 1 − (1 − p)ⁿ − exp(ε) {1 − (1 − Q(z > c))ⁿ} ≥ n δ₁(ε) − n²p²/2.

    Where no outcome is above b the loss is at most n L(b); where one is, that one's and at most
    (n − 1) L(b); two are with a probability of at most n² P(z > b)²/2. So where n L(b) ≤ ε

        δ(ε) ≤ n δ₁(ε − (n − 1) L(b)) + n² P(z > b)²/2.

    >>> tiny = Mixture((math.log1p(-1e-15), math.log(1e-15)), 1.0)
    >>> lower, upper = rare_bounds(tiny, 5, 1e-100)
    >>> f"{lower:.4g} {upper:.4g}"
    '4.923e-07 5.05e-07'
    """
    if pair.most != 1 or pair.exchanged or count < 2:
        return 0.0, math.inf
    q, mu = math.exp(pair.log_weights[1]), pair.spacing
    log_n, log_delta = math.log(count), math.log(delta)
    level, off = log_delta - log_n, 4 * _EPS * (1 + abs(log_delta) + log_n)
    pairs_weigh = log_delta + math.log(_SHARE) - 2 * log_n + math.log(2)  # log p² at most

    lower = amplified(q, mu, level + math.log1p(_SHARE), off)[0]
    if not lower < 600:  # two weigh as much as one
        lower = 0.0
    if lower > 0:
        c = math.log1p(math.expm1(lower) / q) / mu + mu / 2
        if not 2 * pair.log_beyond(c * (1 - 1e-12) - 1e-12) <= pairs_weigh:
            lower = 0.0

    b = where_tail_falls_to(pair.log_beyond, pairs_weigh / 2)
    most = float(pair.curve(np.array([b]))[1][0]) * (1 + 64 * _EPS)
    one = amplified(q, mu, level + math.log1p(-_SHARE), off)[1]
    upper = (one + (count - 1) * most) * (1 + 4 * _EPS) if one >= most >= 0 else math.inf
    return lower, upper
