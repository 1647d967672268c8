"""Laplace noise on sums of bounded contributions, drawn by OpenDP.

Why one event stands for a vector [Laplace noise of scale b on every coordinate]: where neighbours
move coordinate i by v_i, the privacy loss is the sum of independent losses, those of scalar Laplace
releases moved by v_i, and two such releases cost no more than one moved by their sum. For ε₁ ≤ ε₂
(ε_i = |v_i| / b) and 0 ≤ t ≤ ε₁ + ε₂, δ(t) of the pair is 1 − e^{(t−ε₁−ε₂)/2} (1 + ε₁/2) up to
t = ε₂ − ε₁ and 1 − e^{−y} (1 + y/2), y = (ε₁ + ε₂ − t)/2, beyond; both are at most 1 − e^{−y}, that
of the one. Negative t follow since both pairs are symmetric, more coordinates by induction. So a
vector costs what a scalar moved by its L1 sensitivity costs; where each coordinate can move by its
own bound, composing the coordinates is cheaper still.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accountant import Laplace
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.mechanisms.library import opendp

_GRID = 2.0**20  # contributions are rounded to 1/_GRID of their bound, so that sums are exact
_SLACK = 1e-9


def exact_sums(contributions: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """(d,) sums of (units, d) values in [−bound, bound], in units of the bound.

    Values are clipped and rounded to a grid first, so that a sum is a whole number of grid steps:
    float sums round, and a neighbour could move them by more than the bound.

    >>> exact_sums(np.array([[1.0, 9.0], [-0.5, 9.0]]), 2.0)
    array([0.25, 2.  ])
    """
    clipped = np.clip(np.nan_to_num(contributions / bound, nan=0.0), -1.0, 1.0)
    total: NDArray[np.float64] = np.rint(clipped * _GRID).astype(np.int64).sum(axis=0) / _GRID
    return total


def add_laplace(sums: NDArray[np.float64], event: Laplace, moves: float) -> NDArray[np.float64]:
    """``sums`` with Laplace noise on each coordinate, as ``event`` says.

    Args:
        sums: (d,) float64.
        event: what is charged for ``moves``; its noise multiplier times that is the scale.
        moves: how far a neighbour moves one coordinate, or all together in L1.

    Raises:
        GuaranteeBroken: OpenDP's own price of the draw is above the event's.

    >>> add_laplace(np.ones(3), Laplace(noise_multiplier=1e-6), 1.0).round(3)
    array([1., 1., 1.])
    """
    scale = event.noise_multiplier * moves
    dp = opendp()
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.l1_distance(T=float)
    draw = dp.m.make_laplace(*space, scale=scale)
    refuse_dearer(draw.map(moves), 1 / event.noise_multiplier, "Laplace")
    return np.array(draw(sums.astype(np.float64).tolist()))


def refuse_dearer(price: float, charged: float, name: str) -> None:
    """Fail loudly where the library that draws the noise prices it above what is charged."""
    if not price <= charged * (1 + _SLACK):
        raise GuaranteeBroken(
            f"{name}: OpenDP prices the draw at {price!r}, {charged!r} was charged; nothing was "
            "released: report it"
        )
