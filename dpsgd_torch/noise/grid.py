r"""Discrete Gaussian noise on a public grid, exact to the last bit: the noise of secure mode.

A sum x of vectors clipped to C is told in cells of g = C / 2³⁰, as whole numbers k = round(x / g),
discrete Gaussian noise of σ = noise multiplier × 2³⁰ cells is added to each, and (k + noise) g over
the declared number of vectors is what is released: a function of whole numbers, whose own rounding
is post-processing. What a record can move k by, in L2 norm and in cells, has these parts:

* Its own vector: 2³⁰ (twice where one is exchanged, ``Sampler.sensitivity``). It is clipped to a
  margin below C, of which one half covers norms taken in float32, and the other what both
  neighbours' sums are off by as they are added up in floating point, in whichever order (γ_n of
  float64, and the measured error of a float32 product): ``training.private_optimizer``.
* The others' vectors: all passes have one size (``training.filled``), in which a row's vector was
  seen not to move by a bit with its place or its company (``training.rehearse_filled``): in one of
  another size it may move by any amount, where a ReLU falls on the other side. What is left is how
  norms, and sums of a microbatch's rows, are rounded. Each of the at most M others
  (``Sampler.most``) may so move by 2⁻¹⁹ of C: M 2¹¹ cells, which add up however they point.
* x / g in float64: off by 2⁻⁵³ of itself, ‖x‖ ≤ M C, in both: 2 M 2⁻⁵³ 2³⁰ cells.
* Rounding to cells: each sum moves by up to √d / 2, so their difference by √d, d ≤ 2³⁰ coordinates:
  2¹⁵ cells, 3 in 100,000 of the whole.

The sum of these is the sensitivity that ``DiscreteGaussian`` is charged with. The second part
rests on an assumption on the model's arithmetic: the statement says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from accountant import (
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    NoCost,
    PoissonSampled,
    TruncatedPoissonSampled,
    UnsupportedEvent,
)
from accountant.errors import check
from accountant.rounding import rounded_sum_sensitivity
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.mechanisms.discrete import CELLS, PASS
from dpsgd_torch.noise.base import Noise, Release, State, StepPlan
from dpsgd_torch.noise.measured import check_sum_and_noise, energy
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.secure.discrete import LARGEST, discrete_gaussian
from dpsgd_torch.secure.generator import refuse_missing, secure_bits

DIMENSION = 2**30  # coordinates at most

_PIECE = 1 << 16  # coordinates that are noised at once, so that they stay in the cache
_MOST = 2.0**21  # vectors: their sum, in cells, is below 2^51, far from where float64 has gaps


class GridGaussian(Noise):
    """Discrete Gaussian noise of noise multiplier × clip norm on the sum told on a grid.

    * Each step's noise is drawn exactly [Canonne, Kamath, Steinke 2020], from bits of a
      cryptographic generator, independently of every other's: each step is charged by itself, or
      a sampler's period at its first step. In a period's other steps whoever was in one of its
      batches is in none: with them or without, those have the same rows in the same places, so
      the same sums to the last bit, and what rounding can move is in the one that is charged.
    * The grid is 2⁻³⁰ of the clip norm; what rounding to it, and in what comes before, can move is
      charged as sensitivity.
    * Each release checks the norm of the sum, and the deviation of the noise really added.

    >>> from dpsgd_torch.samplers.poisson import PoissonSampler
    >>> sampler = PoissonSampler(dataset_size=60000, batch_size=1024, steps=20)
    >>> GRID.charges(0, 1.3, sampler).event.noise_multiplier
    1.294...
    """

    name: ClassVar[str] = "grid"
    secure: ClassVar[bool] = True
    not_covered: ClassVar[str] = (
        "how long a step takes: whoever can time it to microseconds may learn of its noise, and "
        "whoever reads the memory of the process, or private/, knows all of it."
    )

    def check(self, sampler: Sampler) -> None:
        refuse_missing()
        self.charges(0, 1.0, sampler)
        rule = f"must be at most {_MOST:g} in secure mode, in which sums are kept exact up to there"
        check(sampler.most() <= _MOST, "largest batch", sampler.most(), rule, "lower batch_size")

    def charges(
        self, step: int, noise_multiplier: float, sampler: Sampler, first: int = 0
    ) -> Event:
        event = sampler.charges(step, noise_multiplier, first)
        match event:
            case NoCost():
                return event
            case (
                PoissonSampled(event=Gaussian())
                | FixedSizeSampled(event=Gaussian())
                | TruncatedPoissonSampled(event=Gaussian())
            ):
                inner = _on_grid(noise_multiplier, sampler)
                return dataclasses.replace(event, event=inner)
            case Gaussian():
                return _on_grid(noise_multiplier, sampler)
        raise UnsupportedEvent(
            f"sampler = {sampler.name}: charges {event!r}, which has no discrete counterpart here; "
            "leave out secure, or take another sampler"
        )

    def state(self, params: Sequence[torch.nn.Parameter]) -> State:
        coordinates = sum(p.numel() for p in params)
        check(coordinates <= DIMENSION, "parameters", coordinates, f"must be at most {DIMENSION}")
        return {}

    def add(
        self, sums: Sequence[torch.Tensor], params: Sequence[torch.nn.Parameter], release: Release
    ) -> None:
        bits = secure_bits(release.rng)
        if bits is None:
            raise GuaranteeBroken(
                "noise: secure noise was asked of a generator that is not; nothing was released: "
                "pass secure=True to whoever trains"
            )
        coordinates = sum(p.numel() for p in params)
        step = release.plan.clip_norm / CELLS  # exactly
        deviation = release.plan.noise_multiplier * CELLS
        total = math.sqrt(sum(energy(each) for each in sums))
        if not (coordinates <= DIMENSION and total <= release.vectors * release.plan.clip_norm):
            check_sum_and_noise(total, math.inf, 0.0, step, coordinates, release)
        added = 0.0
        for p, summed in zip(params, sums, strict=True):
            flat = summed.view(-1)
            grad = torch.empty_like(flat, dtype=p.dtype)
            for start in range(0, p.numel(), _PIECE):
                exact = flat[start : start + _PIECE].double().cpu().numpy()
                cells = np.rint(exact / step).astype(np.int64)
                noise = discrete_gaussian(bits, deviation, len(cells))
                cells += noise
                floats = noise.astype(np.float64)
                added += float(floats @ floats)
                told = torch.from_numpy(cells.astype(np.float64) * step / release.divisor)
                grad[start : start + _PIECE] = told
            p.grad = grad.view(p.shape)
        check_sum_and_noise(total, added * step**2, deviation * step, step, coordinates, release)

    def deviation(self, plan: StepPlan, state: State | None = None) -> float:
        del state
        return plan.noise_multiplier * plan.clip_norm

    def describe(self, first: StepPlan, last: StepPlan) -> str:
        words = (
            f"discrete Gaussian noise of {first.noise_multiplier:.6g} times that norm, "
            f"{first.noise_multiplier * CELLS:.6g} cells of a grid of 2^-30 of it,"
        )
        if last.noise_multiplier != first.noise_multiplier:
            words += f" (by the last step {last.noise_multiplier:.6g} times)"
        return f"{words} was added to the sum told on that grid"


GRID = GridGaussian()


def sensitivity_in_cells(sampler: Sampler, dimension: int = DIMENSION) -> float:
    """By how many cells neighbours can move the sum that is told, in L2 norm: all parts above."""
    off = sampler.most() * (PASS / 2 + 2.0**-52)  # of either sum, in clip norms
    return rounded_sum_sensitivity(float(sampler.sensitivity), 1 / CELLS, dimension, off)


def _on_grid(noise_multiplier: float, sampler: Sampler) -> DiscreteGaussian:
    deviation = noise_multiplier * CELLS
    check(
        noise_multiplier == 0 or 4 <= deviation <= LARGEST,
        "noise_multiplier",
        noise_multiplier,
        f"must lie between 2^-28 and {LARGEST / CELLS:g} in secure mode",
    )
    cells = sensitivity_in_cells(sampler)
    relative = math.nextafter(deviation / cells, 0.0)
    return DiscreteGaussian(
        noise_multiplier=math.nextafter(relative, 0.0),  # times cells it is at most the deviation
        sensitivity=cells,
        relation=sampler.relation,
        dimension=DIMENSION,
    )
