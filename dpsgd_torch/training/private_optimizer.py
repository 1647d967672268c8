"""Clip, sum, noise, divide by what was declared: the part of a step that ε rests on."""

from __future__ import annotations

import math

import torch
from opacus.optimizers import DPOptimizer
from scipy import special

from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.plan import StepPlan
from dpsgd_torch.training.vectors import Vectors

_ROUNDING = 1e-5  # float32 slack: vectors are clipped to this much below what is charged
_FALSE_ALARM = 1e-12  # chance that honest noise fails the check of one step


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer, driven by a plan: accumulate physical batches, then release once.

    * Clipping, summing and noise are Opacus's design; what differs is what the plan decides.
    * A non-finite gradient contributes zero; an empty batch still gets its noise.
    * The noisy sum is divided by the declared number of microbatches.
    * Each release checks its own claims: the largest clipped norm, the norm of the sum, and the
      deviation of the noise that was really added.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, microbatches: int) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=math.nan,  # set by the plan before every step
            max_grad_norm=math.nan,
            expected_batch_size=microbatches,
        )
        self._clipped = 0
        size = sum(p.numel() for p in self.params)
        tails = special.gammaincinv(size / 2, [_FALSE_ALARM, 1 - _FALSE_ALARM])
        self._noise_bounds = 2 * tails  # of a chi-square with one degree of freedom a parameter

    def begin(self, plan: StepPlan, generator: torch.Generator) -> None:
        """Take this step's clip and noise from the plan."""
        self.max_grad_norm, self.noise_multiplier = plan.clip_norm, plan.noise_multiplier
        self.generator = generator
        self._clipped = 0
        for p in self.params:
            p.summed_grad = torch.zeros_like(p)

    def accumulate(self, vectors: Vectors) -> torch.Tensor:
        """Clip each slot's vector and add it to the sum.

        Returns:
            Norms before the clip, of the slots that have one, for the private record.
        """
        norms = vectors.norms
        finite = torch.isfinite(norms)
        if not finite.any():
            return norms[finite]
        factors = (self.max_grad_norm * (1 - _ROUNDING) / (norms + 1e-6)).clamp(max=1.0)
        factors = factors.where(finite, 0.0)
        vectors.add_to([p.summed_grad for p in self.params], factors)
        largest = int(norms.where(finite, -1.0).argmax())
        self._check_clip(vectors.vector(largest), float(factors[largest]))
        self._clipped += int(finite.sum())
        return norms[finite]

    def release(self) -> None:
        """Add the noise, divide by the declared number of microbatches, take the step."""
        self.add_noise()
        self._check_sum_and_noise()
        for p in self.params:
            p.grad /= self.expected_batch_size
            p.summed_grad = None
        self.original_optimizer.step()

    def _check_clip(self, largest: list[torch.Tensor], factor: float) -> None:
        clipped = factor * math.sqrt(sum(map(_energy, largest)))
        if not clipped <= self.max_grad_norm:
            raise GuaranteeBroken(
                f"clipped norm = {clipped:.6g}: must be ≤ clip_norm = {self.max_grad_norm}; "
                "nothing was released: report this with the model"
            )

    def _check_sum_and_noise(self) -> None:
        total, noise = 0.0, 0.0
        for p in self.params:
            total += _energy(p.summed_grad)
            noise += _energy(p.grad - p.summed_grad)
        bound = self._clipped * self.max_grad_norm
        std = self.noise_multiplier * self.max_grad_norm
        low, high = self._noise_bounds * std**2
        if not (math.sqrt(total) <= bound and low <= noise <= high):
            raise GuaranteeBroken(
                f"norm of the sum = {math.sqrt(total):.6g} (planned ≤ {bound:.6g}), noise energy = "
                f"{noise:.6g} (planned {low:.6g} to {high:.6g}): nothing was released; report this"
            )


def _energy(values: torch.Tensor) -> float:
    """The sum of squares, in float64."""
    flat = values.flatten().double()
    return float(flat @ flat)
