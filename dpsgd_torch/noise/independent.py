"""Independent Gaussian noise, drawn anew in each step: that of DP-SGD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from accountant import Event
from dpsgd_torch.mechanisms.gaussian import Floats, fill_normal, grid
from dpsgd_torch.noise.base import Noise, Release, State, StepPlan
from dpsgd_torch.noise.measured import check_sum_and_noise, energy
from dpsgd_torch.samplers.base import Sampler

_PIECE = 1 << 16  # coordinates that are noised at once, so that they stay in the cache


class IndependentGaussian(Noise):
    """Gaussian noise of deviation noise multiplier × clip norm on each coordinate of the sum.

    * Each step's noise is independent of every other's, so each step is charged by itself.
    * Sums and noise are float64; the noisy sum is told on a public grid, divided, and rounded once
      to the parameters' precision.
    * Each release checks the norm of the sum, and the deviation of the noise really added.
    """

    name: ClassVar[str] = "independent"
    not_covered: ClassVar[str] = (
        "what computers cannot draw exactly: noise is drawn in float64, without a largest value, "
        "and told on a public grid, so that the known attacks on pairs, tails and last bits fail; "
        "its law is a Gaussian's to within the generator's resolution of 2^-52, not exactly. (Runs "
        "made before 29 November 2026 drew it in float32: what they state does not hold against "
        "those attacks.)"
    )

    def check(self, sampler: Sampler) -> None:
        del sampler  # prices a Gaussian release of its own batches, whatever they are

    def charges(
        self, step: int, noise_multiplier: float, sampler: Sampler, first: int = 0
    ) -> Event:
        return sampler.charges(step, noise_multiplier, first)

    def add(
        self, sums: Sequence[torch.Tensor], params: Sequence[torch.nn.Parameter], release: Release
    ) -> None:
        clip_norm, coordinates = release.plan.clip_norm, sum(p.numel() for p in params)
        std = release.plan.noise_multiplier * clip_norm
        step = grid(min(std, clip_norm) or clip_norm, coordinates, std)
        noise, total, added = np.empty(_PIECE), 0.0, 0.0
        for p, summed in zip(params, sums, strict=True):
            flat = summed.view(-1)
            grad = flat if summed.dtype == p.dtype else torch.empty_like(flat, dtype=p.dtype)
            for start in range(0, p.numel(), _PIECE):
                exact = flat[start : start + _PIECE].double()
                fill_normal(release.rng, noise[: len(exact)])
                noisy, energies = noised(exact, noise[: len(exact)], std, step)
                total, added = total + energies.of_sum, added + energies.of_noise
                grad[start : start + _PIECE] = noisy.div_(release.divisor)
            p.grad = grad.view(p.shape)
        refuse_unplanned(Energies(total, added), std, step, coordinates, release)

    def deviation(self, plan: StepPlan, state: State | None = None) -> float:
        del state
        return plan.noise_multiplier * plan.clip_norm

    def describe(self, first: StepPlan, last: StepPlan) -> str:
        words = f"Gaussian noise of {first.noise_multiplier:.6g} times that norm was added"
        if last.noise_multiplier != first.noise_multiplier:
            words += f" (by the last step {last.noise_multiplier:.6g} times)"
        return words


INDEPENDENT = IndependentGaussian()


@dataclass(frozen=True)
class Energies:
    """Sums of squares: of what was to be hidden, and of the noise that hides it."""

    of_sum: float
    of_noise: float


def noised(
    exact: torch.Tensor, standard: Floats, std: float, step: float
) -> tuple[torch.Tensor, Energies]:
    """Float64 values plus ``std`` times the ``standard`` ones, on the grid; they are used up."""
    noisy = torch.from_numpy(standard).to(exact.device).mul_(std)
    noisy.add_(exact).div_(step).round_().mul_(step)
    of_sum = energy(exact)
    return noisy, Energies(of_sum, energy(exact.sub_(noisy)))


def refuse_unplanned(
    found: Energies, std: float, step: float, coordinates: int, release: Release
) -> None:
    """Refuse a release whose sum is longer than so many clipped vectors', or noise another.

    Raises:
        GuaranteeBroken: nothing may be released.
    """
    total = math.sqrt(found.of_sum)
    check_sum_and_noise(total, found.of_noise, std, step, coordinates, release)
