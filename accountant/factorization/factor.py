"""A Toeplitz strategy matrix C of the prefix sums A = B C: its noise, its error and its price.

What is released are the rows of C G + w, with independent Gaussian w; prefix sums of gradients
follow as B (C G + w) = A (G + C⁻¹ w), so that training adds the noise C⁻¹ w, step by step
[Denisov et al. 2022, "Improved differential privacy for SGD via optimal private linear operators
on adaptive streams"].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import NDArray

from accountant.errors import check
from accountant.factorization.buffers import Buffers
from accountant.factorization.participation import Participation, SinglePass
from accountant.factorization.sensitivity import Sensitivity, sensitivity

Array = NDArray[np.float64]

_ROUNDED = 1e-12  # less than what sensitivities are rounded up by


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A lower triangular Toeplitz matrix C, by its first column.

    * c_0 = 1. The columns are longer than that: noise of the release has the deviation
      noise_multiplier × ``sensitivity(participation)`` × clip norm.
    * Noise of step t is z_t = w_t − Σ_{j=1}^{b−1} c_j z_{t−j}: the last b − 1 of the z are kept.
    * With ``inverse``, the first column of a banded C⁻¹, it is z_t = Σ_j inverse_j w_{t−j}: the
      last of the w are kept instead, and C, whose column is then long, is what is priced.
    * With ``buffers``, of d weights ω and decays λ, it is z_t = w_t − Σ_i ω_i s_i, and then
      s_i ← λ_i s_i + z_t for each i: what is kept, and all that a resumed run needs, are the d
      sums s_i, zero at first. C is long as well.
    * Independent noise is the factor of one band.

    >>> factor = Factor(name="example", steps=4, coefficients=(1.0, 0.5))
    >>> factor.bands, factor.kept, round(factor.sensitivity(SinglePass())**2, 6)
    (2, 1, 1.25)
    >>> factor.correlated(np.array([1.0, 0.0, 0.0, 0.0]))
    array([ 1.   , -0.5  ,  0.25 , -0.125])
    """

    name: str
    steps: int
    coefficients: tuple[float, ...]
    inverse: tuple[float, ...] = ()
    buffers: Buffers | None = None

    def __post_init__(self) -> None:
        c = self.coefficients
        check(self.steps >= 1 and self.steps % 1 == 0, "steps", self.steps, "must be ≥ 1")
        check(
            1 <= len(c) <= self.steps,
            "bands",
            len(c),
            f"must lie between 1 and steps = {self.steps}",
        )
        check(c[0] == 1, "coefficients[0]", c[0], "must be 1", "divide all by it")
        for place, value in enumerate(c):
            check(math.isfinite(value), f"coefficients[{place}]", value, "must be finite")
        both = bool(self.inverse) and self.buffers is not None
        check(not both, "inverse", self.name, "is none where there are buffers")
        if self.inverse:
            self._same("inverse", inverted(self.inverse, self.steps))
        if self.buffers:
            self._same("buffers", self.buffers.column(self.steps))

    def _same(self, made_of: str, column: Array) -> None:
        """Refuse noise that is made of one matrix and priced as another."""
        whole = len(self.coefficients) == self.steps
        off = float(np.abs(column - self.coefficients).max()) if whole else math.inf
        rule = "differs from that of the coefficients"
        check(off < _ROUNDED, made_of, off, rule, f"use of_{made_of}")

    @classmethod
    def of_inverse(cls, name: str, steps: int, inverse: Array) -> Factor:
        """The factor whose C⁻¹ is banded, with that first column.

        >>> factor = Factor.of_inverse("example", 4, np.array([1.0, -0.5]))
        >>> factor.coefficients, factor.kept
        ((1.0, 0.5, 0.25, 0.125), 1)
        """
        column, rest = inverted(inverse, steps), np.asarray(inverse, float)[:steps]
        return cls(
            name=name,
            steps=steps,
            coefficients=tuple(column.tolist()),
            inverse=tuple(rest.tolist()),
        )

    @classmethod
    def of_buffers(cls, name: str, steps: int, buffers: Buffers) -> Factor:
        """The buffered linear Toeplitz factor of those weights and decays.

        >>> factor = Factor.of_buffers("example", 4, Buffers(weights=(0.5,), decays=(0.5,)))
        >>> factor.coefficients, factor.kept
        ((1.0, 0.5, 0.25, 0.125), 1)
        """
        column = tuple(buffers.column(steps).tolist())
        return cls(name=name, steps=steps, coefficients=column, buffers=buffers)

    @property
    def bands(self) -> int:
        """b: entries of the first column."""
        return len(self.coefficients)

    @property
    def kept(self) -> int:
        """Noise vectors, each as long as the model, that the next step needs."""
        if self.buffers:
            return len(self.buffers.weights)
        return len(self.inverse or self.coefficients) - 1

    @cached_property
    def first_column(self) -> Array:
        """c as an array, [bands]."""
        return np.array(self.coefficients)

    @cached_property
    def column_norm(self) -> float:
        """√Σ c_j², rounded up: the longest column."""
        return self.sensitivity(SinglePass())

    def bound(self, participation: Participation) -> Sensitivity:
        """L2 sensitivity of C x, whether it is exact, and why it holds."""
        return sensitivity(self.first_column, self.steps, participation)

    def sensitivity(self, participation: Participation) -> float:
        """L2 sensitivity of C x over adaptive streams, for contributions of norm ≤ 1; ≥ the truth.

        Replacing a record moves it by up to twice as much.
        """
        return self.bound(participation).upper

    def correlated(self, noise: Array) -> Array:
        """C⁻¹ w of independent noise w [steps, …]: what training adds at each step."""
        if self.buffers:
            return self.buffers.inverse().applied(noise)
        over = ([*self.inverse], [1.0]) if self.inverse else ([1.0], self.first_column)
        return np.asarray(scipy.signal.lfilter(*over, noise, axis=0))

    def root_mean_square_error(self, participation: Participation) -> float:
        """Deviation of a prefix sum's noise, root mean square over steps.

        In units of noise_multiplier × clip norm, an entry: ‖B‖_F / √steps × sensitivity.

        >>> one = Factor(name="independent", steps=2000, coefficients=(1.0,))
        >>> round(one.root_mean_square_error(SinglePass()) ** 2, 6)  # (steps + 1) / 2
        1000.5
        """
        return math.sqrt(self._squares.mean()) * self.sensitivity(participation)

    def max_error(self, participation: Participation) -> float:
        """The same of the last and worst prefix sum."""
        return math.sqrt(self._squares[-1]) * self.sensitivity(participation)

    @cached_property
    def _squares(self) -> Array:
        """Squared norms of the rows of B = A C⁻¹, [steps]."""
        column = self.correlated(np.ones(self.steps))
        return np.cumsum(column * column)

    def to_json(self) -> dict[str, Any]:
        """As a run's configuration or its ledger keeps it: what noise is made of, to the bit."""
        named: dict[str, Any] = {"name": self.name, "steps": self.steps}
        if self.buffers:
            return {**named, "buffers": self.buffers.to_json()}
        own = "inverse" if self.inverse else "coefficients"
        return {**named, own: list(getattr(self, own))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Factor:
        """The factor that ``to_json`` wrote.

        >>> factor = Factor(name="example", steps=4, coefficients=(1.0, 0.5))
        >>> Factor.from_json(factor.to_json()) == factor
        True
        """
        name, steps = str(data["name"]), int(data["steps"])
        if "buffers" in data:
            return cls.of_buffers(name, steps, Buffers.from_json(data["buffers"]))
        if "inverse" in data:
            return cls.of_inverse(name, steps, np.array(data["inverse"], float))
        column = tuple(float(value) for value in data["coefficients"])
        return cls(name=name, steps=steps, coefficients=column)


def inverted(column: Sequence[float] | Array, steps: int) -> Array:
    """The first column of a Toeplitz matrix's inverse, [steps].

    >>> inverted([1.0, 0.5], 4)
    array([ 1.   , -0.5  ,  0.25 , -0.125])
    """
    first = np.zeros(steps)
    first[0] = 1
    return np.asarray(scipy.signal.lfilter([1.0], np.asarray(column, float), first))
