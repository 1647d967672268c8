"""What a release measures of itself before it lets go: the sum's norm, the noise's energy."""

from __future__ import annotations

import math
from functools import lru_cache

import scipy  # which loads its submodules when they are first used
import torch

from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.noise.base import Release

_FALSE_ALARM = 1e-12  # chance that honest noise fails the check of one step


def check_sum_and_noise(
    total: float, added: float, std: float, step: float, coordinates: int, release: Release
) -> None:
    """Refuse a sum longer than its vectors can make it, and noise that is not what was planned.

    Args:
        total: L2 norm of the sum.
        added: sum of the squares of what was added to it.
        step: of the grid that it was rounded to.

    Raises:
        GuaranteeBroken: nothing may be released.
    """
    clip_norm = release.plan.clip_norm
    bound = release.vectors * clip_norm
    low, high = (math.sqrt(energy) * std for energy in energy_bounds(coordinates))
    # Rounding, to the grid and to float64, also moves the noise: all that counts of a lone
    # coordinate's when it is near 0, or of one far smaller than the sum.
    rounding = math.sqrt(coordinates) * step + 2.0**-51 * (total + high)
    low, high = max(0.0, low - rounding), high + rounding
    if std == 0:  # what rounding to the grid adds
        high = clip_norm * 1e-6
    if not (total <= bound and low**2 <= added <= high**2):
        raise GuaranteeBroken(
            f"norm of the sum = {total:.6g} (planned ≤ {bound:.6g}), noise energy = {added:.6g} "
            f"(planned {low**2:.6g} to {high**2:.6g}): nothing was released; report this"
        )


@lru_cache
def energy_bounds(coordinates: int) -> tuple[float, float]:
    """Of a chi-square with one degree of freedom a coordinate."""
    low, high = 2 * scipy.special.gammaincinv(coordinates / 2, [_FALSE_ALARM, 1 - _FALSE_ALARM])
    return float(low), float(high)


def energy(values: torch.Tensor) -> float:
    """The sum of squares, in float64."""
    flat = values.flatten().double()
    return float(flat @ flat)
