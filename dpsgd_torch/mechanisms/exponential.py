"""The exponential mechanism as noisy maxima with Gumbel noise, drawn by OpenDP.

The largest of scores / scale + Gumbel noise is an outcome with probability ∝ exp(score / scale)
[McSherry, Talwar 2007], and the k largest are k such choices without replacement [Durfee, Rogers
2019, Lemma 4.2]. (OpenDP's noisy max under pure differential privacy is permute-and-flip, another
mechanism; under zero-concentrated it adds Gumbel noise.) Neighbours that move every score by some
value in [0, Δ] (all up, or all down) change the log-odds of two outcomes by at most Δ / scale,
which is the bounded range that ``accountant.ExponentialMechanism`` prices; scores that can move
either way change them by 2Δ / scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accountant import ExponentialMechanism, Relation
from dpsgd_torch.mechanisms.laplace import refuse_dearer
from dpsgd_torch.mechanisms.library import opendp


def choice_event(epsilon: float) -> ExponentialMechanism:
    """One choice of bounded range ``epsilon``, between data sets that differ by one unit."""
    return ExponentialMechanism(epsilon=epsilon, relation=Relation.ADD_OR_REMOVE_ONE)


def choose(
    scores: NDArray[np.float64],
    event: ExponentialMechanism,
    *,
    sensitivity: float,
    monotone: bool,
    count: int = 1,
) -> NDArray[np.int64]:
    """(count,) positions of high scores, best first, each choice charged as ``event``.

    Args:
        scores: (candidates,), higher is better.
        sensitivity: how far a neighbour moves any score.
        monotone: whether a neighbour moves all of them the same way.

    Raises:
        GuaranteeBroken: OpenDP's own price of the draw is above the event's.

    >>> choose(np.array([0.0, 9.0, 5.0]), choice_event(50.0), sensitivity=1.0, monotone=True,
    ...        count=2)
    array([1, 2])
    """
    moves = sensitivity if monotone else 2 * sensitivity
    dp = opendp()
    space = (
        dp.vector_domain(dp.atom_domain(T=float, nan=False)),
        dp.linf_distance(T=float, monotonic=monotone),
    )
    draw = dp.m.make_noisy_top_k(
        *space, dp.zero_concentrated_divergence(), k=count, scale=moves / event.epsilon
    )
    charged = count * event.epsilon**2 / 8  # zCDP of bounded range [Cesar, Rogers 2021, Lemma 3.2]
    refuse_dearer(draw.map(sensitivity), charged, "exponential mechanism")
    return np.array(draw(scores.astype(np.float64).tolist()), dtype=np.int64)
