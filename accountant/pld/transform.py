"""The transform of one privacy loss along a contour, with what its evaluation may be off by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accountant.dominating_pairs.pairs import GOAL, Array, Pair, log_moment
from accountant.pld.fourier import ERROR, fourier_sums

_EPS = float(np.finfo(np.float64).eps)
_TURN, _TERMS = 3.0, 32  # exp(ix) for |x| ≤ 3: the next term weighs 6e-22


@dataclass(frozen=True)
class Transform:
    """log φ(u) for φ(u) = M(t + iu)/M(t) at the nodes, the error of φ, and log M(t).

    Rounded losses are losses moved a little: by ``shift`` in the mean, which moves ε by as much,
    and by less than ``kappa`` in what else they do to φ.
    """

    log_phi: NDArray[np.complex128]
    kappa: Array
    log_moment: float
    shift: float
    lost: float


def transform(pair: Pair, tilt: float, period: float, u: Array) -> Transform:
    nodes = pair.nodes(tilt, float(u[-1]))
    weight = nodes.log_q + (1 + tilt) * nodes.loss
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    loss, weight = nodes.loss[weight > 1e-22], weight[weight > 1e-22]
    mean = float(weight @ loss)
    shift = 8 * _EPS * (abs(mean) + float(weight @ np.abs(loss)))
    psi = np.empty(u.size, dtype=np.complex128)
    kappa = np.empty(u.size)
    start = 0
    for stop in _bands(u.size):
        psi[start:stop], kappa[start:stop] = _psi(loss - mean, weight, period, u[:stop], start)
        start = stop
    square = 2 * psi.real + np.abs(psi) ** 2
    far_off = np.log(np.maximum(np.abs(1 + psi), kappa))
    size = np.where(square > -0.5, np.log1p(np.maximum(square, -0.5)) / 2, far_off)
    angle = np.arctan2(psi.imag, 1 + psi.real) + u * mean
    return Transform(size + 1j * angle, kappa, log_moment(nodes, tilt), shift, nodes.lost)


def _bands(count: int) -> list[int]:
    """Low frequencies apart from high ones: what turns little there is summed exactly."""
    return [count // 1024, count // 32, count] if count > 4096 else [count]


def _psi(
    loss: Array, weight: Array, period: float, u: Array, start: int
) -> tuple[NDArray[np.complex128], Array]:
    """E[exp(iuL)] − 1 from u[start] on, for L of mean zero, and its error.

    Points that turn little are summed by their moments, of which what is rounded is small when
    the losses are; the others by Fourier sums.
    """
    turn = loss * u[-1]
    near = np.abs(turn) <= _TURN
    x = 1j * (u[start:] / u[-1])
    psi = np.zeros(x.size, dtype=np.complex128)
    turn, weight_near = turn[near], weight[near]
    moments = [weight_near.sum()]
    power = weight_near
    for _ in range(_TERMS):
        power = power * turn
        moments.append(power.sum())
    for k in range(_TERMS, 0, -1):
        psi = (psi + moments[k] / math.factorial(k)) * x
    square = float(weight_near @ loss[near] ** 2)
    kappa = 2 * GOAL + 8 * _EPS * square * u[start:] ** 2
    if not near.all():
        far, weight_far = loss[~near], weight[~near]
        mass = float(weight_far.sum())
        psi += fourier_sums(far / period, weight_far, u.size)[start:] - mass
        kappa += ERROR * mass + 16 * _EPS * float(weight_far @ np.abs(far)) * u[start:]
    return psi, kappa
