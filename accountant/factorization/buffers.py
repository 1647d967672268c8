"""What a buffered linear Toeplitz matrix keeps of the past: a few sums that fade."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # which loads its submodules when they are first used
from numpy.typing import NDArray

from accountant.errors import check

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Buffers:
    """Weights ω and decays λ of C's first column: c_0 = 1, c_t = Σ_i ω_i λ_i^{t−1}.

    >>> Buffers(weights=(0.5, 0.25), decays=(0.5, 0.0)).column(4)
    array([1.   , 0.75 , 0.25 , 0.125])
    """

    weights: tuple[float, ...]
    decays: tuple[float, ...]

    def __post_init__(self) -> None:
        counts = len(self.weights), len(self.decays)
        check(counts[0] == counts[1] >= 1, "buffers", counts, "must be as many weights as decays")
        for place, (weight, decay) in enumerate(zip(self.weights, self.decays, strict=True)):
            check(math.isfinite(weight), f"weights[{place}]", weight, "must be finite")
            check(-1 < decay < 1, f"decays[{place}]", decay, "must lie between -1 and 1")

    def column(self, steps: int) -> Array:
        """C's first column, [steps]."""
        powers = np.array(self.decays)[:, None] ** np.arange(max(steps - 1, 0))
        return np.concatenate([[1.0], np.array(self.weights) @ powers])

    def applied(self, noise: Array) -> Array:
        """C times [steps, …]."""
        total = np.array(noise, dtype=float)
        for weight, decay in zip(self.weights, self.decays, strict=True):
            total += weight * scipy.signal.lfilter([0.0, 1.0], [1.0, -decay], noise, axis=0)
        return total

    def inverse(self) -> Buffers:
        """Those of C⁻¹, a buffered linear Toeplitz matrix as well, for weights ≥ 0.

        The recurrence s ← Λ s + 1 (w − ωᵀ s) has the matrix Λ − 1 ωᵀ, which is similar to the
        symmetric Λ − √ω √ωᵀ: its eigenvalues are the decays, and none is above that of C.

        >>> Buffers((0.25,), (0.75,)).inverse()
        Buffers(weights=(-0.25,), decays=(0.5,))
        """
        check(min(self.weights) >= 0, "weights", min(self.weights), "must be ≥ 0")
        root = np.sqrt(self.weights)
        decays, vectors = np.linalg.eigh(np.diag(self.decays) - np.outer(root, root))
        weights = -((root @ vectors) ** 2)
        return Buffers(tuple(weights.tolist()), tuple(decays.tolist()))

    def to_json(self) -> dict[str, list[float]]:
        """Both, to the bit."""
        return {"weights": list(self.weights), "decays": list(self.decays)}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[float]]) -> Buffers:
        """Those that ``to_json`` wrote."""
        weights, decays = (tuple(map(float, data[name])) for name in ("weights", "decays"))
        return cls(weights=weights, decays=decays)
