"""What the accountants answer: bounds, never bare numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from accountant.errors import Contradiction


@dataclass(frozen=True)
class EpsilonBounds:
    """lower ≤ ε ≤ upper, which is checked; ``narrow`` says whether it is as narrow as asked."""

    lower: float
    upper: float
    narrow: bool = field(default=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check("ε", self.lower, self.upper, math.inf)


@dataclass(frozen=True)
class DeltaBounds:
    """lower ≤ δ ≤ upper, which is checked."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        _check("δ", self.lower, self.upper, 1.0)


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


def _check(name: str, lower: float, upper: float, most: float) -> None:
    """An interval that holds nothing comes of a fault of ours, and must not be reported."""
    if not 0 <= lower <= upper <= most:
        raise Contradiction(
            f"{name} = {lower!r} … {upper!r}: bounds contradict each other; nothing is stated: "
            "report what was composed"
        )


NOTHING = EpsilonBounds(0.0, 0.0)
EVERYTHING = EpsilonBounds(math.inf, math.inf)
