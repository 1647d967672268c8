"""Automatic clipping (AUTO-S): every vector is normalised, a little less the smaller it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from accountant.errors import check
from dpsgd_torch.clipping.base import Clipping

_LEAST = 1e-6  # below which float32 cannot tell what it would multiply by a million


@dataclass(frozen=True)
class AutomaticClipping(Clipping):
    """Normalised clipping [Bu, Wang, Zha, Karypis 2023, Section 3.3, AUTO-S]: g · C / (‖g‖ + γ).

    * Its norm is C ‖g‖ / (‖g‖ + γ) < C for every g: sensitivity C, approached as ‖g‖ grows.
    * A vector of zeros stays one; one of norm γ gets half of C.
    * The clip norm scales the step as the learning rate does, and no more.

    Args:
        gamma: γ, in units of the gradient's norm; 0.01 in the paper.

    Raises:
        InvalidValue: γ below 1e-6; without it vectors near zero would be noise made large.

    >>> AutomaticClipping(0.5).factors(torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64), 1.0)
    tensor([2.0000, 1.0000, 0.5000], dtype=torch.float64)
    """

    name: ClassVar[str] = "automatic"
    gamma: float = 0.01

    def __post_init__(self) -> None:
        rule = f"must lie between {_LEAST:g} and 1e6"
        check(_LEAST <= self.gamma <= 1e6, "gamma", self.gamma, rule, "0.01 is the paper's")

    def factors(self, norms: torch.Tensor, bound: float) -> torch.Tensor:
        return bound / (norms + self.gamma)

    def check(self, *, scheduled: bool, secure: bool, independent: bool) -> None:
        rule = "makes small gradients larger, and what rounds in them, for which secure mode has no"
        check(not secure, "clipping", self.name, f"{rule} charge", "clip flat, or drop secure")

    def far(self, clip_norm: float) -> float:
        return 1000.0 * (clip_norm + self.gamma)

    def describe(self, first: float, last: float) -> str:
        words = f"its gradient g was normalised to {first:g} · g / (‖g‖ + {self.gamma:g})"
        words += f" (by the last step to {last:g} times that)" if last != first else ""
        return f"{words}, of L2 norm below {max(first, last):g},"
