"""One sampled Gaussian release in closed form: no integral is needed where nothing is composed."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize
from scipy.special import log_ndtr

from accountant.mixture import Mixture
from accountant.pairs import log_sum

_EPS = float(np.finfo(np.float64).eps)


def single_bounds(pair: Mixture, delta: float) -> tuple[float, float]:
    """lower ≤ ε ≤ upper for one release.

    The privacy loss is monotone in the outcome z, so that δ = P(z beyond c) − exp(ε) Q(z beyond c)
    for the c of loss ε, sums of normal tails.

    >>> lower, upper = single_bounds(Mixture((math.log(0.99), math.log(0.01)), 1.0), 1e-5)
    >>> round(lower, 9), round(upper, 9)
    (0.199450448, 0.199450448)
    """
    side = 1.0 if not pair.exchanged else -1.0  # where losses are large

    def tails(c: float) -> tuple[float, float, float]:
        """Loss at c, and log P and log Q beyond it."""
        _, loss = pair.curve(np.array([c]))
        j = np.arange(pair.most + 1)
        mixed = float(log_sum(np.array(pair.log_weights) + log_ndtr(side * (j * pair.spacing - c))))
        plain = float(log_ndtr(-side * c))
        p, q = (plain, mixed) if pair.exchanged else (mixed, plain)
        return float(loss[0]), p, q

    def excess(c: float) -> float:
        loss, log_p, log_q = tails(c)
        return math.exp(log_p) - math.exp(loss + log_q) - delta

    far = 40.0 + pair.spacing * pair.most
    low, high = -far, far
    if excess(low) * excess(high) >= 0:
        return 0.0, math.inf
    c = float(optimize.brentq(excess, low, high, xtol=1e-15, rtol=4 * _EPS))
    loss, log_p, log_q = tails(c)
    # Rounding of tails and loss, over −dδ/dε = exp(ε) Q, and the root's own tolerance.
    noise = 16 * _EPS * (1 + c * c + abs(loss)) * math.exp(log_p - loss - log_q)
    slope = pair.spacing * pair.most
    error = noise + 8 * _EPS * (slope * (1 + abs(c)) + abs(loss))
    return max(loss - error, 0.0), max(loss + error, 0.0)
