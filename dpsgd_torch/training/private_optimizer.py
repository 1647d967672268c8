"""Clip, sum, noise, divide by what was declared: the part of a step that ε rests on."""

from __future__ import annotations

import math

import torch
from opacus.optimizers import DPOptimizer
from scipy import special

from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.plan import StepPlan

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

    def accumulate(self, slots: torch.Tensor | None, microbatch_size: int) -> torch.Tensor:
        """Clip what the last backward pass left and add it to the sum.

        Args:
            slots: the microbatch of each example, numbered from 0; None where each is its own.
            microbatch_size: the declared size, by which a microbatch's sum is divided.

        Returns:
            Norms before the clip, one per microbatch, for the private record.
        """
        grads = [p.grad_sample.flatten(1) for p in self.params]
        for p in self.params:
            p.grad_sample = None
        norms = _norms(grads)
        finite = torch.isfinite(norms)
        if not finite.all():
            grads = [g[finite] for g in grads]
            norms = norms[finite]
            slots = None if slots is None else slots[finite]
        if norms.numel() == 0:
            return norms
        if slots is not None:
            count = int(slots.max()) + 1
            grads = [
                g.new_zeros(count, g.shape[1]).index_add_(0, slots, g) / microbatch_size
                for g in grads
            ]
            norms = _norms(grads)
        factors = (self.max_grad_norm * (1 - _ROUNDING) / (norms + 1e-6)).clamp(max=1.0)
        for p, g in zip(self.params, grads, strict=True):
            p.summed_grad += (factors @ g).view_as(p)
        self._check_clip(grads, factors, int(norms.argmax()))
        self._clipped += norms.numel()
        return norms

    def release(self) -> None:
        """Add the noise, divide by the declared number of microbatches, take the step."""
        self.add_noise()
        self._check_sum_and_noise()
        for p in self.params:
            p.grad /= self.expected_batch_size
            p.summed_grad = None
        self.original_optimizer.step()

    def _check_clip(self, grads: list[torch.Tensor], factors: torch.Tensor, largest: int) -> None:
        clipped = _norms([(factors[largest] * g[largest])[None].double() for g in grads])
        if not clipped <= self.max_grad_norm:
            raise GuaranteeBroken(
                f"clipped norm = {float(clipped):.6g}: must be ≤ clip_norm = {self.max_grad_norm}; "
                "nothing was released: report this with the model"
            )

    def _check_sum_and_noise(self) -> None:
        total, noise = 0.0, 0.0
        for p in self.params:
            total += float(p.summed_grad.double().square().sum())
            noise += float((p.grad - p.summed_grad).double().square().sum())
        bound = self._clipped * self.max_grad_norm
        std = self.noise_multiplier * self.max_grad_norm
        low, high = self._noise_bounds * std**2
        if not (math.sqrt(total) <= bound and low <= noise <= high):
            raise GuaranteeBroken(
                f"norm of the sum = {math.sqrt(total):.6g} (planned ≤ {bound:.6g}), noise energy = "
                f"{noise:.6g} (planned {low:.6g} to {high:.6g}): nothing was released; report this"
            )


def _norms(grads: list[torch.Tensor]) -> torch.Tensor:
    # Squares are summed in pairs; torch's norm adds them one by one on the CPU, and in float32
    # loses 4e-4 of a vector of ten million ones.
    return torch.stack([g.square().sum(1) for g in grads]).sum(0).sqrt()
