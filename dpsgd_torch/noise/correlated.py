"""Noise correlated between steps by a matrix factorization: BandMF, its inverse, BLT."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch

from accountant import Event, NoCost, UnsupportedEvent
from accountant.errors import check
from accountant.factorization.factor import Factor
from accountant.factorization.kinds import KINDS
from accountant.factorization.participation import FixedEpochs, Participation, SinglePass
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.mechanisms.gaussian import fill_normal, grid
from dpsgd_torch.noise.base import Noise, Release, State, StepPlan
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.noise.measured import check_sum_and_noise, energy
from dpsgd_torch.noise.past import past_of
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.cyclic import CyclicPoisson
from dpsgd_torch.samplers.passes import Passes

_PIECE = 1 << 16  # coordinates that are noised at once, so that they stay in the cache


@dataclass(frozen=True)
class Correlated(Noise):
    """Gaussian noise Z with C Z = W: most of what one step adds, later ones take off again.

    * C is lower triangular, Toeplitz, with ``bands`` diagonals 1, c₁ … c_{b−1}, a public function
      of the number of steps. W is fresh in each step and independent of all before: on each
      coordinate Gaussian, of deviation noise multiplier × clip norm × sensitivity of C. Step t adds
      z_t = w_t − Σ_{j≥1} c_j z_{t−j} to its sum [Choquette-Choo et al. 2023, Section 4]; where it
      is C⁻¹ that has so few diagonals, z_t = Σ_j (C⁻¹)_j w_{t−j}. Of "blt", whose c_t is
      Σ_i ω_i λ_i^{t−1}, it is z_t = w_t − Σ_i ω_i s_i, and then s_i ← λ_i s_i + z_t [Dvijotham et
      al. 2024, Section 4]: sums s_i that fade are all that is kept.
    * All that is released is a function of C X + W, for sums X, also where each sum is chosen
      in view of the releases before [Denisov et al. 2022, Theorem 2.1].
    * Under ``CyclicPoisson`` of at least ``bands`` parts the columns of C that one record can touch
      have no row in common, whatever is drawn: what it moves in the rows of one period is one
      column times its vector, of norm ≤ max ‖C e_t‖ × clip norm, if it is sampled. Given its part,
      which is independent of all else, this is the composition of ⌈steps / cycle⌉ Poisson-sampled
      Gaussian releases at the part's rate [Theorem 4 there], and its prefixes are prefixes of it:
      each period is charged at its first step.
    * Under ``Passes`` all of it is one Gaussian release, against the sensitivity of C over the
      orders that passes allow: charged whole at the first step.
    * An attempt that draws anew begins with no past, so with C's first rows and columns: its own
      releases cost no more than the whole from the start on, and are charged so again.
    * Sums, noise and past are float64; the noisy sum is told on a public grid and rounded once. The
      past is what was drawn, so it says nothing of any sum.
    * What C is optimised to is kept with the run: a resumed one goes on with that very C.
    * Each release checks the norm of the sum, the deviation of the noise really added, and that of
      the part of it which is fresh: what is left of it once the past is taken off.

    Args:
        kind: of C: "bandmf", optimised for the root-mean-square error of the prefix sums; its
            closed form "banded_sqrt"; or, for ``Passes`` alone, "bandinvmf" and
            "banded_inverse_sqrt", where C⁻¹ has few diagonals, and "blt".
        bands: diagonals of C, or of C⁻¹; so many noises less one, each of the size of the model in
            float64, are held and kept in checkpoints. Of "blt" the sums that are: 1 to 10, 3 do.

    >>> from dpsgd_torch.samplers.cyclic import cyclic
    >>> sampler = cyclic(4)(dataset_size=1000, batch_size=50, steps=40)
    >>> Correlated("banded_sqrt", 4).charges(0, 1.5, sampler)
    PoissonSampled(sampling_rate=0.2, event=Gaussian(noise_multiplier=1.5))
    """

    name: ClassVar[str] = "correlated"
    not_covered: ClassVar[str] = INDEPENDENT.not_covered

    kind: str = "bandmf"
    bands: int = 16
    planned: Planned | None = field(default=None, compare=False, repr=False)
    begun_with: Factor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        rule = f"must be one of {', '.join(KINDS)}"
        check(self.kind in KINDS, "kind of correlated noise", self.kind, rule)
        check(self.bands >= 1, "bands", self.bands, "must be at least 1")

    def check(self, sampler: Sampler) -> None:
        least = max(2, self.bands)
        rule = "must be as many as bands, and two at least"
        check(sampler.steps >= least, "steps", sampler.steps, rule, "raise epochs, or lower bands")
        if isinstance(sampler, CyclicPoisson):
            bands = self.bound(sampler).of_plan.factor.bands
            rule = f"must be at least {bands}, the bands of {self}, or one record's columns meet"
            move = "take as many parts, or Passes (--sampling passes)"
            check(sampler.cycle >= bands, "cycle", sampler.cycle, rule, move)
        elif not isinstance(sampler, Passes):
            raise UnsupportedEvent(
                f"noise = {self}: is analysed for cyclic Poisson samples and for passes in a fixed "
                f"order, not for those of {sampler.name}; take sampler=cyclic({self.bands}) or "
                "Passes, on the command line --sampling cyclic or passes"
            )

    def __str__(self) -> str:
        return f"correlated:{self.kind}:{self.bands}"

    def bound(self, sampler: Sampler) -> Correlated:
        allowed: Participation = SinglePass()
        if isinstance(sampler, Passes):
            allowed = FixedEpochs(steps_per_epoch=sampler.period)
        factor = self.begun_with
        if factor is None or factor.steps != sampler.steps:
            factor = _optimised(self.kind, self.bands, sampler.steps, allowed)
        planned = _planned(factor, allowed, sampler.sensitivity)
        return dataclasses.replace(self, planned=planned)

    def computed(self) -> dict[str, Any]:
        """C, to the bit."""
        return self.of_plan.factor.to_json()

    def as_computed(self, kept: Mapping[str, Any]) -> Correlated:
        return dataclasses.replace(self, begun_with=Factor.from_json(kept)) if kept else self

    def charges(
        self, step: int, noise_multiplier: float, sampler: Sampler, first: int = 0
    ) -> Event:
        if not isinstance(sampler, Passes):
            return sampler.charges(step, noise_multiplier, first)
        if step > first:
            return NoCost(relation=sampler.relation)
        return sampler.release(noise_multiplier)

    @property
    def kept(self) -> int:
        """Vectors, each as long as the model, that the next step needs."""
        return self.bands if self.kind == "blt" else self.bands - 1

    def state(self, params: Sequence[torch.nn.Parameter]) -> State:
        """What the steps to come need of those that were, and how many these are."""
        past: State = {
            f"past.{number}": torch.zeros(
                (self.kept, p.numel()), dtype=torch.float64, device=p.device
            )
            for number, p in enumerate(params)
        }
        return {"taken": torch.zeros(1, dtype=torch.int64), **past}

    def add(
        self, sums: Sequence[torch.Tensor], params: Sequence[torch.nn.Parameter], release: Release
    ) -> None:
        planned, clip_norm = self.of_plan, release.plan.clip_norm
        looks_back = past_of(planned.factor)
        coordinates, taken = sum(p.numel() for p in params), int(release.state["taken"])
        fresh = release.plan.noise_multiplier * clip_norm * planned.sensitivity
        std = fresh * planned.growth[taken]
        step = grid(min(std, clip_norm), coordinates, std)
        noise, found = np.empty(_PIECE), np.zeros(3)
        for number, (p, summed) in enumerate(zip(params, sums, strict=True)):
            past = _past(release.state, number, p)
            flat = summed.view(-1)
            grad = torch.empty_like(flat, dtype=p.dtype)
            for start in range(0, p.numel(), _PIECE):
                exact = flat[start : start + _PIECE].double()
                fill_normal(release.rng, noise[: len(exact)])
                drawn = torch.from_numpy(noise[: len(exact)]).to(exact.device, copy=True)
                before = past[:, start : start + len(exact)]
                mixed = looks_back.added(before, taken)
                new = drawn.mul_(fresh)
                drawn = new + mixed
                noisy = (exact + drawn).div_(step).round_().mul_(step)
                added = noisy - exact
                found += [energy(exact), energy(added), 0.0]
                found[2] += energy(added - mixed)
                looks_back.keep(before, taken, new, drawn)
                grad[start : start + _PIECE] = noisy.div_(release.divisor)
            p.grad = grad.view(p.shape)
        total = math.sqrt(found[0])
        check_sum_and_noise(total, float(found[1]), std, step, coordinates, release)
        rounded = 2 * step + 2.0**-50 * total
        check_sum_and_noise(total, float(found[2]), fresh, rounded, coordinates, release)
        release.state["taken"] += 1

    def describe(self, first: StepPlan, last: StepPlan) -> str:
        planned = self.of_plan
        fresh = first.noise_multiplier * planned.sensitivity
        of = "buffers" if self.kind == "blt" else "bands"
        begun, ended = (fresh * planned.growth[at] for at in (0, -1))
        return (
            f"Gaussian noise was added that is correlated between steps (a {self.kind} "
            f"factorization of {self.bands} {of}), so that sums over steps have less of it: of "
            f"{begun:.6g} times that norm in the first step and {ended:.6g} times in the last, "
            f"charged as {first.noise_multiplier / planned.exchanged:.6g} times the most that one "
            "record can move, over all steps that it takes part in and that noise is shared between"
        )

    def deviation(self, plan: StepPlan, state: State | None = None) -> float:
        """Of z_t alone, whatever was added before."""
        taken, planned = int(state["taken"]) if state else 0, self.of_plan
        fresh = plan.noise_multiplier * plan.clip_norm * planned.sensitivity
        return fresh * planned.growth[taken]

    def to_json(self) -> dict[str, Any]:
        return {"noise": self.name, "kind": self.kind, "bands": self.bands}

    @property
    def of_plan(self) -> Planned:
        """C, for the planned steps."""
        if self.planned is None:
            raise GuaranteeBroken(
                f"noise = {self}: was not told how many steps are planned; nothing was released: "
                "take it from a PrivacyPlan"
            )
        return self.planned


@dataclass(frozen=True)
class Planned:
    """C for so many steps, the sensitivity charged for, and each step's deviation over W's.

    ``exchanged``: clip norms that one record can move one sum by.
    """

    factor: Factor
    sensitivity: float
    growth: tuple[float, ...]
    exchanged: int


@lru_cache(maxsize=16)
def _optimised(kind: str, bands: int, steps: int, allowed: Participation) -> Factor:
    return KINDS[kind](steps, bands, allowed)


@lru_cache(maxsize=16)
def _planned(factor: Factor, allowed: Participation, exchanged: int) -> Planned:
    # the deviation of step t's noise is the norm of row t of C⁻¹
    column = factor.correlated(np.eye(factor.steps, 1)[:, 0])
    growth = tuple(np.sqrt(np.cumsum(column**2)).tolist())
    return Planned(factor, factor.sensitivity(allowed), growth, exchanged)


def _past(state: State, number: int, param: torch.nn.Parameter) -> torch.Tensor:
    """That of one parameter, on its device: a checkpoint is read on the CPU."""
    name = f"past.{number}"
    state[name] = state[name].to(param.device)
    return state[name]
