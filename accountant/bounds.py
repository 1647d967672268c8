"""What the accountants answer: bounds, never bare numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EpsilonBounds:
    """lower ≤ ε ≤ upper."""

    lower: float
    upper: float


@dataclass(frozen=True)
class DeltaBounds:
    """lower ≤ δ ≤ upper."""

    lower: float
    upper: float


@dataclass(frozen=True)
class RdpBound:
    """An upper bound on ε and the Rényi order that gave it (NaN where ε = ∞)."""

    upper: float
    order: float
    beyond_grid: bool = False

    @property
    def lower(self) -> float:
        """Rényi curves bound from above alone."""
        return 0.0


NOTHING = EpsilonBounds(0.0, 0.0)
EVERYTHING = EpsilonBounds(math.inf, math.inf)
