"""Adaptive clipping: the clip norm follows a quantile of the norms, told with noise, and paid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from accountant.errors import check
from dpsgd_torch.clipping.base import Clipping
from dpsgd_torch.clipping.flat import FLAT

_MOST_SHARE = 1 / 16  # of a step's privacy that the count may take: 3.3 % more noise on gradients
_SOFT = 0.01  # of the clip norm, on either side of which a norm counts in part
_UP = 1 + 2.0**-48  # so that rounding in the two multipliers only adds noise


@dataclass(frozen=True)
class AdaptiveClipping(Clipping):
    """Clip norm by a private quantile [Andrew, Thakkar, McMahan, Ramaswamy 2021, Algorithm 1].

    * Each vector is clipped flat to C, and adds a number b to a count: ½ where its norm is below C,
      −½ where above, and in between within 1 % of C. One that is not finite adds 0. b hangs on that
      vector alone; a record that is not there adds nothing.
    * Σ b / m, m the declared number of vectors, is told with noise: + ½ it estimates what part of
      the norms is below C. Then C ← C exp(−η (told + ½ − quantile)), within ``limit`` times the
      first clip norm either way. The next C is computed from what was told alone.
    * Sum and count are *one* Gaussian release. A record moves (Σ g, Σ b) by at most (C, ½) where it
      is added or removed, by (2C, 1) where a vector is exchanged (microbatches, replace-one): S
      times (1, ½) in clip norms. With noise multiplier z charged as z / S, the sum gets noise
      of z_Δ C and the count of σ_b with 1/z_Δ² + 1/(2 σ_b)² = 1/z², so that in units of each
      coordinate's own noise the two move by S/z at most: what is charged, no more.
    * What C a step has is fixed before it begins: adaptive composition covers the rest.

    Args:
        quantile: of the norms, that C is to be at.
        rate: η.
        share: (z / 2σ_b)², the count's part of a step's privacy; None: such that σ_b = m / 20, or
            1/16 where that is less.
        limit: by what the first clip norm is multiplied or divided at most.

    >>> adaptive = AdaptiveClipping(0.5)
    >>> adaptive.noise_of_sums(1.0, 40), adaptive.noise_of_count(1.0, 40)
    (1.032..., 2.00...)
    """

    name: ClassVar[str] = "adaptive"
    quantile: float = 0.5
    rate: float = 0.2
    share: float | None = None
    limit: float = 1000.0

    def __post_init__(self) -> None:
        q, rate, share = self.quantile, self.rate, self.share
        check(0 < q < 1, "quantile", q, "must lie strictly between 0 and 1")
        check(0 < rate <= 10, "rate", rate, "must lie above 0, and be at most 10")
        check(share is None or 0 < share < 1, "share", share, "must lie strictly between 0 and 1")
        check(1 <= self.limit <= 1e6, "limit", self.limit, "must lie between 1 and 1e6")

    def factors(self, norms: torch.Tensor, bound: float) -> torch.Tensor:
        return FLAT.factors(norms, bound)

    def counted(self, norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
        """(slots,) b of vectors of these norms (float64).

        >>> AdaptiveClipping().counted(torch.tensor([0.5, 1.0, 7.0]), 1.0).tolist()
        [0.5, 0.0, -0.5]
        """
        return ((clip_norm - norms) / (2 * _SOFT * clip_norm)).clamp(-0.5, 0.5)

    def next(self, clip_norm: float, told: float, first: float) -> float:
        """The clip norm after ``told``, the noisy Σ b / m, was released."""
        step = max(-50.0, min(50.0, -self.rate * (told + 0.5 - self.quantile)))
        moved = clip_norm * math.exp(step)
        return min(max(moved, first / self.limit), first * self.limit)

    def noise_of_sums(self, noise_multiplier: float, microbatches: int) -> float:
        share = self._share(noise_multiplier, microbatches)
        return _UP * noise_multiplier / math.sqrt(1 - share)

    def noise_of_count(self, noise_multiplier: float, microbatches: int) -> float:
        share = self._share(noise_multiplier, microbatches)
        return _UP * noise_multiplier / (2 * math.sqrt(share))

    def _share(self, noise_multiplier: float, microbatches: int) -> float:
        if self.share is not None:
            return self.share
        return min(_MOST_SHARE, (10 * noise_multiplier / microbatches) ** 2)

    def check(self, *, scheduled: bool, secure: bool, independent: bool) -> None:
        rule, name = "goes by what each step tells", self.name
        check(not scheduled, "clipping", name, f"{rule}; not by a schedule", "drop the schedule")
        rule = "tells a count beside the sum, for which secure mode draws no noise"
        check(not secure, "clipping", name, rule, "clip flat, or drop secure")
        rule = "is one release with the sum, whose noise must be Gaussian and drawn anew each step"
        check(independent, "clipping", name, rule, "take independent noise, or clip flat")

    def describe(self, first: float, last: float) -> str:
        del last
        return (
            f"its gradient was clipped to an L2 norm that began at {first:g} and followed the "
            f"{self.quantile:g} quantile of the norms by a noisy count of the gradients below it, "
            "released with each step's sum and paid for in the same charge,"
        )
