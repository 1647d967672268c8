"""What optimised factors minimise: error² × sensitivity², with gradients by Toeplitz columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # which loads its submodules when they are first used

from accountant.errors import check
from accountant.factorization.factor import Array, Factor
from accountant.factorization.participation import Participation, Reshuffled, SinglePass
from accountant.factorization.sensitivity import evenly_spaced, separation

Objective = Literal["rms", "max"]
Loss = Callable[[Array], tuple[float, Array]]

DIGITS = 6  # parameters are rounded to: the error is flat at its least, machines differ below

_FAR = 1e3  # the loss where C⁻¹ grows without bound: a step too far


@dataclass(frozen=True, kw_only=True)
class Least:
    """The error of prefix sums and the sensitivity of contributions that are evenly spaced."""

    steps: int
    most: int
    apart: int
    weights: Array

    @classmethod
    def of(cls, steps: int, participation: Participation | None, objective: Objective) -> Least:
        """For a pattern (none: a single pass) and the rms or the last prefix sum's error."""
        check(objective in ("rms", "max"), "objective", objective, "must be rms or max")
        pattern = participation or SinglePass()
        apart = separation(pattern, steps)
        if isinstance(pattern, Reshuffled):  # as if in one order: its worst pairs mislead
            apart = min(pattern.steps_per_epoch, steps)
        linear = (steps - np.arange(steps)) / steps
        return cls(
            steps=steps,
            most=max(pattern.most(steps), 1),
            apart=apart,
            weights=linear if objective == "rms" else np.ones(steps),
        )

    def error(self, column: Array) -> tuple[float, Array]:
        """Squared error of B with that first column, and its gradient by it."""
        pulled = self.weights * column
        return float(pulled @ column), 2 * pulled

    def sensitivity(self, column: Array) -> tuple[float, Array]:
        """Squared sensitivity of C with that first column, and its gradient by it."""
        moved = evenly_spaced(column, self.steps, self.most, self.apart)
        padded = np.concatenate([moved, np.zeros(len(column))])
        gradient = np.zeros(len(column))
        for start in range(0, min(self.most * self.apart, self.steps), self.apart):
            gradient += 2 * padded[start : start + len(column)]
        return float(moved @ moved), gradient

    def log_loss(
        self, error: tuple[float, Array], sensitivity: tuple[float, Array]
    ) -> tuple[float, Array]:
        """log(error² × sensitivity²), from both with their gradients by the parameters."""
        (one, by_one), (other, by_other) = error, sensitivity
        if not (one < 1e200 and other < 1e200):
            return _FAR, np.zeros(len(by_one))
        return float(np.log(one) + np.log(other)), by_one / one + by_other / other


def correlate(pulled: Array, column: Array, length: int) -> Array:
    """Σ_j pulled_j column_{j−m} for m < length."""
    steps = len(pulled)
    if length <= 64:
        return np.array([pulled[m:] @ column[: steps - m] for m in range(length)])
    whole = scipy.signal.correlate(pulled, column, method="fft")
    return np.asarray(whole[steps - 1 : steps - 1 + length])


def minimised(
    loss: Loss, start: Array, between: tuple[float | None, float | None] = (None, None)
) -> Array:
    """Where L-BFGS ends, every parameter within those bounds."""

    def quiet(point: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            return loss(point)

    options = {"maxiter": 2000, "maxcor": 30, "ftol": 1e-14, "gtol": 1e-9}
    answer = scipy.optimize.minimize(
        quiet, start, jac=True, method="L-BFGS-B", bounds=[between] * len(start), options=options
    )
    return np.asarray(answer.x)


def best(
    candidates: list[Factor], participation: Participation | None, objective: Objective
) -> Factor:
    """The one of least error at its certified sensitivity."""
    pattern = participation or SinglePass()

    def error(factor: Factor) -> float:
        if objective == "max":
            return factor.max_error(pattern)
        return factor.root_mean_square_error(pattern)

    return min(candidates, key=error)


def check_bands(steps: int, bands: int) -> None:
    """Refuse bands that are none, or more than there are steps."""
    check(
        1 <= bands <= steps and bands % 1 == 0,
        "bands",
        bands,
        f"must be a whole number between 1 and steps = {steps}",
        "lower the bands",
    )
