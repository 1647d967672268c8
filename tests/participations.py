"""Participations written out, and how far one record moves C x over all of them, by brute force."""

import itertools

import numpy as np

from accountant.factorization.participation import (
    FixedEpochs,
    MinSeparation,
    Reshuffled,
    SinglePass,
)


def toeplitz(c, steps):
    """C itself."""
    matrix = np.zeros((steps, steps))
    for j, value in enumerate(c[:steps]):
        matrix += value * np.eye(steps, k=-j)
    return matrix


def patterns(participation, steps):
    """Every largest set of steps that one record may contribute to, written out."""
    match participation:
        case SinglePass():
            return [(i,) for i in range(steps)]
        case FixedEpochs(steps_per_epoch=e):
            return [tuple(range(o, steps, e)) for o in range(min(e, steps))]
        case Reshuffled(steps_per_epoch=e):
            return list(
                itertools.product(*[range(s, min(s + e, steps)) for s in range(0, steps, e)])
            )
        case MinSeparation(participations=k, separation=b):
            return [
                some
                for size in range(1, k + 1)
                for some in itertools.combinations(range(steps), size)
                if all(later - one >= b for one, later in itertools.pairwise(some))
            ]


def by_brute_force(c, steps, participation):
    """The most that numbers in [−1, 1] move C x: at a corner, as the norm is convex."""
    matrix, worst = toeplitz(c, steps), 0.0
    for some in patterns(participation, steps):
        for signs in itertools.product((1, -1), repeat=len(some) - 1):
            moved = matrix[:, list(some)] @ np.array([1, *signs])
            worst = max(worst, float(np.linalg.norm(moved)))
    return worst
