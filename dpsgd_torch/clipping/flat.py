"""Flat clipping: one L2 norm over all parameters, and what is shorter stays as it is."""

from __future__ import annotations

from typing import ClassVar

import torch

from dpsgd_torch.clipping.base import Clipping

_ABOVE_ZERO = 1e-6  # added to a norm, so that none is divided by 0


class FlatClipping(Clipping):
    """Clipping of DP-SGD [Abadi et al. 2016, Algorithm 1]: g · min(1, C / ‖g‖).

    * One factor for all parameters together: the direction stays.
    * Sensitivity C, reached by every gradient that is longer.

    >>> FlatClipping().factors(torch.tensor([0.5, 4.0], dtype=torch.float64), 1.0)
    tensor([1.0000, 0.2500], dtype=torch.float64)
    """

    name: ClassVar[str] = "flat"

    def factors(self, norms: torch.Tensor, bound: float) -> torch.Tensor:
        return (bound / (norms + _ABOVE_ZERO)).clamp(max=1.0)

    def describe(self, first: float, last: float) -> str:
        words = f"its gradient was clipped to L2 norm {first:g}"
        return words + (f" (by the last step {last:g})" if last != first else "")


FLAT = FlatClipping()
