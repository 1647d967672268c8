"""Clip, sum, noise, divide by what was declared: the part of a step that ε rests on."""

from __future__ import annotations

import math

import numpy as np
import scipy  # which loads its submodules when they are first used
import torch

from accountant import InvalidValue
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.mechanisms.gaussian import fill_normal, grid
from dpsgd_torch.plan import StepPlan
from dpsgd_torch.training.vectors import Vectors

_ROUNDING = 1e-5  # vectors are clipped to this much below what is charged: see refuse_long_sums
_FALSE_ALARM = 1e-12  # chance that honest noise fails the check of one step
_PIECE = 1 << 16  # coordinates that are noised at once, so that they stay in the cache


def refuse_long_sums(batch_size: int, physical_batch_size: int) -> None:
    """Refuse batches in which rounding could move a sum by more than half of what is kept back.

    The sum of m vectors of norm ≤ C, in float64 and in pieces of p, is off by less than
    m (p + m / p) 2⁻⁵³ C, and two neighbours' sums by twice that [Higham 2002, Section 4.2]: 2e-8 C
    for 65,536 in pieces of 128. The other half is for the norms, which are float32. Twice the
    expected batch is taken for m, which no Poisson sample of such a size comes near.

    Raises:
        InvalidValue: naming the physical batch size that is large enough.
    """
    most = 2 * batch_size
    piece = min(physical_batch_size, most)
    if 2 * most * (piece + most / piece) * 2.0**-53 > _ROUNDING / 2:
        raise InvalidValue(
            f"physical_batch_size = {physical_batch_size}: in batches of {batch_size} so many "
            "pieces could round to more than is charged; raise it to "
            f"{2 ** math.ceil(math.log2(math.sqrt(most)))}, or lower the batch size"
        )


class PrivateOptimizer:
    """A torch optimizer driven by a plan: accumulate physical batches, then release once.

    * A vector is clipped to the plan's clip norm; one that is not finite contributes zero; an
      empty batch still gets its noise.
    * Sums and noise are float64; the noisy sum is divided by the declared number of microbatches
      and rounded once, to the parameters' precision.
    * Each release checks its own claims: the largest clipped norm, the norm of the sum, and the
      deviation of the noise that was really added.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, microbatches: int) -> None:
        self.optimizer, self.microbatches = optimizer, microbatches
        self.params: list[torch.nn.Parameter] = [
            p for group in optimizer.param_groups for p in group["params"] if p.requires_grad
        ]
        self.sums: list[torch.Tensor] = []
        self._clipped = 0
        self._coordinates = sum(p.numel() for p in self.params)
        tails = scipy.special.gammaincinv(self._coordinates / 2, [_FALSE_ALARM, 1 - _FALSE_ALARM])
        self._noise_bounds = 2 * tails  # of a chi-square with one degree of freedom a parameter

    def begin(self, plan: StepPlan, rng: np.random.Generator) -> None:
        """Take this step's clip and noise from the plan."""
        self.clip_norm, self.noise_multiplier, self.rng = plan.clip_norm, plan.noise_multiplier, rng
        self._clipped = 0
        if self.sums:
            for total in self.sums:
                total.zero_()
        else:
            self.sums = [p.new_zeros(p.shape, dtype=torch.float64) for p in self.params]

    def accumulate(self, vectors: Vectors) -> torch.Tensor:
        """Clip each slot's vector and add it to the sum.

        Returns:
            Norms before the clip, of the slots that have one, for the private record.
        """
        norms = vectors.norms
        finite = torch.isfinite(norms)
        if not finite.any():
            return norms[finite]
        factors = (self.clip_norm * (1 - _ROUNDING) / (norms + 1e-6)).clamp(max=1.0)
        factors = factors.where(finite, 0.0)
        vectors.add_to(self.sums, factors)
        largest = int(norms.where(finite, -1.0).argmax())
        self._check_clip(vectors.norm(largest), float(factors[largest]))
        self._clipped += int(finite.sum())
        return norms[finite]

    def release(self) -> None:
        """Add the noise, divide by the declared number of microbatches, take the step."""
        self.add_noise()
        self.optimizer.step()

    def add_noise(self) -> None:
        """Leave (sum + noise) / microbatches in each parameter's ``grad``, or raise."""
        std = self.noise_multiplier * self.clip_norm
        step = grid(min(std, self.clip_norm) or self.clip_norm, self._coordinates)
        noise, total, added = np.empty(_PIECE), 0.0, 0.0
        for p, sums in zip(self.params, self.sums, strict=True):
            flat, grad = sums.view(-1), torch.empty(p.numel(), dtype=p.dtype, device=p.device)
            for start in range(0, p.numel(), _PIECE):
                exact = flat[start : start + _PIECE]
                fill_normal(self.rng, noise[: len(exact)])
                noisy = torch.from_numpy(noise[: len(exact)]).to(exact.device).mul_(std)
                noisy.add_(exact).div_(step).round_().mul_(step)
                total += _energy(exact)
                added += _energy(noisy - exact)
                grad[start : start + _PIECE] = noisy.div_(self.microbatches)
            p.grad = grad.view(p.shape)
        self._check_sum_and_noise(total, added, std)

    def _check_clip(self, largest: float, factor: float) -> None:
        clipped = factor * largest
        if not clipped <= self.clip_norm:
            raise GuaranteeBroken(
                f"clipped norm = {clipped:.6g}: must be ≤ clip_norm = {self.clip_norm}; "
                "nothing was released: report this with the model"
            )

    def _check_sum_and_noise(self, total: float, added: float, std: float) -> None:
        bound = self._clipped * self.clip_norm
        low, high = self._noise_bounds * std**2
        if std == 0:  # what rounding to the grid adds
            high = (self.clip_norm * 1e-6) ** 2
        if not (math.sqrt(total) <= bound and low <= added <= high):
            raise GuaranteeBroken(
                f"norm of the sum = {math.sqrt(total):.6g} (planned ≤ {bound:.6g}), noise energy = "
                f"{added:.6g} (planned {low:.6g} to {high:.6g}): nothing was released; report this"
            )


def _energy(values: torch.Tensor) -> float:
    """The sum of squares, in float64."""
    flat = values.flatten().double()
    return float(flat @ flat)
