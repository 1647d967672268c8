"""Clipping interface: one object gives the factors, the bound they keep, and describes itself."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch


@dataclass(frozen=True)
class Group:
    """Parameters that are clipped together, by their places, to ``share`` of the clip norm."""

    places: tuple[int, ...]
    share: float = 1.0


@dataclass(frozen=True)
class Clipping(abc.ABC):
    """How a vector becomes one of L2 norm at most the clip norm C.

    * A factor hangs on that vector alone, never on others of its batch.
    * Factor × norm is at most the bound that is handed in, whatever the norm; a vector of zeros
      stays one. Vectors that are not finite are left out by whoever clips.
    * Groups of parameters, each with its share of C, are clipped apart: the squares of all shares
      add up to 1, so that the whole is no longer than C [McMahan et al. 2018, Section 3].

    A kind states its own law as bullets here.
    """

    name: ClassVar[str]
    whole: ClassVar[bool] = True  # one factor a vector, over all parameters together

    @abc.abstractmethod
    def factors(self, norms: torch.Tensor, bound: float) -> torch.Tensor:
        """(slots,) by what vectors of these norms (float64) are multiplied."""

    @abc.abstractmethod
    def describe(self, first: float, last: float) -> str:
        """The clip of the first step and of the last, by their clip norms, as a clause."""

    def groups(self, sizes: Mapping[str, int]) -> tuple[Group, ...]:
        """What is clipped apart, of trained parameters by name, in order, and how many values each.

        Raises:
            InvalidValue: naming a parameter that is in no group.
        """
        return (Group(tuple(range(len(sizes)))),)

    def noise_of_sums(self, noise_multiplier: float, microbatches: int) -> float:
        """The multiplier of the noise on the sum, where a step is charged as this one in all."""
        del microbatches
        return noise_multiplier

    def noise_of_count(self, noise_multiplier: float, microbatches: int) -> float:
        """The deviation of the noise on what is told beside the sum; 0: nothing is."""
        del noise_multiplier, microbatches
        return 0.0

    def check(self, *, scheduled: bool, secure: bool, independent: bool) -> None:
        """Refuse a plan that this clip has no analysis for, before anything is charged.

        Args:
            scheduled: the clip norm follows a schedule.
            secure: the noise is exact, and rounding of passes is charged.
            independent: each step's noise is Gaussian and drawn anew.
        """
        del scheduled, secure, independent

    def far(self, clip_norm: float) -> float:
        """A norm that is clipped to all but the bound: an audit's canaries have it."""
        return 1000.0 * clip_norm

    def to_json(self) -> dict[str, Any]:
        """What a resumed run must share with the run it resumes."""
        return {"clipping": self.name, **dataclasses.asdict(self)}
