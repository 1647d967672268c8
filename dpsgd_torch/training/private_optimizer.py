"""Clip and sum, then noise over what was declared: the part of a step that ε rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from accountant import InvalidValue
from dpsgd_torch.clipping.base import Clipping, Group
from dpsgd_torch.clipping.flat import FLAT
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.gradients.vectors import MARGIN, Vectors
from dpsgd_torch.noise.base import Noise, Release, State, StepPlan
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.optim.base import tell_deviation
from dpsgd_torch.training.clip import clipped
from dpsgd_torch.training.followed import FollowedClipNorm
from dpsgd_torch.training.optimizers import parts_of
from dpsgd_torch.training.shards import Shards
from dpsgd_torch.training.sums import ShardedSums, Sums, WholeSums
from dpsgd_torch.training.world import ALONE, World

if TYPE_CHECKING:
    from dpsgd_torch.privacy.guarantee import PrivacyGuarantee


def refuse_long_sums(batch_size: int, physical_batch_size: int, ranks: int = 1) -> None:
    """Refuse batches in which rounding could move a sum by more than half of what is kept back.

    The sum of m vectors of norm ≤ C, in float64 and in pieces of p, is off by less than
    m (p + m / p) 2⁻⁵³ C, and two neighbours' sums by twice that [Higham 2002, Section 4.2]: 2e-8 C
    for 65,536 in pieces of 128. The other half is for the norms, which are float32. Twice the
    expected batch is taken for m, which no Poisson sample of such a size comes near. R ranks, each
    with its share of the vectors, add up R sums more: m (p + m / p + R) 2⁻⁵³ C.

    Raises:
        InvalidValue: naming the physical batch size that is large enough.
    """
    if sums_are_long(batch_size, physical_batch_size, ranks):
        raise InvalidValue(
            f"physical_batch_size = {physical_batch_size}: in batches of {batch_size} so many "
            "pieces could round to more than is charged; raise it to "
            f"{2 ** math.ceil(math.log2(math.sqrt(2 * batch_size)))}, or lower the batch size"
        )


def sums_are_long(batch_size: int, physical_batch_size: int, ranks: int = 1) -> bool:
    """Whether rounding could be more than ``refuse_long_sums`` allows."""
    most = 2 * batch_size
    piece = min(physical_batch_size, most)
    return 2 * most * (piece + most / piece + ranks - 1) * 2.0**-53 > MARGIN / 2


def trained_by(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """The parameters that an optimizer moves, in its own order."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


class Inserted(Protocol):
    """What an audit adds to a run: vectors of its own, which are clipped and noised like any."""

    def join(self, optimizer: PrivateOptimizer) -> None:
        """Accumulate this step's vectors, once all others are."""

    def see(self, optimizer: PrivateOptimizer) -> None:
        """Look at what is released, before the step is taken."""

    def describe(self) -> str:
        """What was inserted, as sentences for the statement; public."""

    def figures(self, spent: PrivacyGuarantee) -> dict[str, Any]:
        """What was found by those who see what is released, no more; public."""


class PrivateOptimizer:
    """A torch optimizer driven by a plan: accumulate physical batches, then release once.

    * A vector is clipped to the plan's clip norm; one that is not finite contributes zero; an
      empty batch still gets its noise.
    * Sums are float64, or what one float32 product gave whose error was measured; ``noise`` adds
      its own to them, in float64, and leaves the noisy sum over the declared number of
      microbatches.
    * A vector is clipped to a margin below what is charged: half of it covers norms that are
      rounded; of the other half, each of two neighbours' sums may be off by half.
    * Over several ranks each clips and sums its share; sums are added in float64 in the order of
      ranks, and noise is added once: by rank 0, which hands round what is released, or, of many
      values whose noise is drawn by blocks, by each rank to its own part of them (see ``Sums``).
    * Each release checks its own claims: the largest clipped norm here, the norm of the sum and the
      noise that was really added where it is added.
    * The optimizer steps by what has noise alone: it may gain no parameter between.

    Args:
        keyed: whether noise hangs on the sums too: where nothing else tells two runs of one seed
            apart, other sums then meet other noise.
        shards: the parts that each rank holds; None where each holds all.
        clipping: how a vector is cut to the clip norm.
        groups: the parameters that it cuts apart, where it does.
        followed: the clip norm that steps move, where they do.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        microbatches: int,
        noise: Noise | None = None,
        state: State | None = None,
        keyed: bool = False,
        world: World = ALONE,
        shards: Shards | None = None,
        inserted: Inserted | None = None,
        clipping: Clipping = FLAT,
        groups: Sequence[Group] = (),
        followed: FollowedClipNorm | None = None,
    ) -> None:
        self.clipping, self._groups, self._followed = clipping, groups, followed
        self._keyed = keyed
        self.optimizer, self.microbatches, self.world = optimizer, microbatches, world
        self._inserted = inserted
        self.noise: Noise = noise or INDEPENDENT
        held = trained_by(optimizer)
        self._kept: Sums = (
            ShardedSums(shards, held, keyed=keyed)
            if shards
            else WholeSums(held, world, keyed=keyed)
        )
        self.params = self._kept.params
        self._held = list(map(id, _held_by(optimizer)))
        self._clipped, self._rounded = 0, 0.0
        self.state = self.noise.state(self.params) if state is None else state

    def begin(self, plan: StepPlan, rng: np.random.Generator) -> None:
        """Take this step's clip and noise from the plan."""
        self.plan, self.rng = plan, rng
        self.clip_norm, self.noise_multiplier = plan.clip_norm, plan.noise_multiplier
        self._clipped, self._rounded = 0, 0.0
        if self._followed:
            self._followed.begin()
        self._kept.begin()
        for p in trained_by(self.optimizer):
            p.grad = None  # the last release's, whose memory the pass can use

    @property
    def sums(self) -> list[torch.Tensor]:
        """Sums of clipped vectors so far, one tensor a parameter."""
        return self._kept.tensors

    def accumulate(self, vectors: Vectors) -> torch.Tensor:
        """Clip each slot's vector and add it to the sum.

        Returns:
            Norms before the clip, of the slots that have one, for the private record.
        """
        norms = vectors.norms
        finite = torch.isfinite(norms)
        if not finite.any():
            return norms[finite]
        margin = self.clip_norm * vectors.margin
        kept, factors = clipped(vectors, self.clipping, self._groups, self.clip_norm)
        if self._followed:
            self._followed.see(norms[finite])
        # errors add up: each rank has its part, and each piece may take half of the rest
        left = margin / 4 / self.world.size - self._rounded
        self._rounded += self._kept.add(kept, factors, max(0.0, left / 2))
        self._clipped += int(finite.sum())
        return norms[finite]

    def release(self) -> None:
        """Add the noise, divide by the declared number of microbatches, take the step."""
        self._refuse_others()
        self.add_noise()
        self.optimizer.step()

    def add_noise(self) -> None:
        """Leave (sum + noise) / microbatches in each parameter's ``grad``, or raise."""
        if self._followed:  # of records alone, before canaries join
            own = Release(self.plan, self._clipped, self.microbatches, self.rng)
            self._followed.release(own, self.world, self.sums if self._keyed else None)
        if self._inserted:
            self._inserted.join(self)
        release = Release(self.plan, self._clipped, self.microbatches, self.rng, self.state)
        deviation = self.noise.deviation(self.plan, self.state)  # as it is before the step
        self._kept.release(self.noise, release)
        of_grad = None if deviation is None else deviation / self.microbatches
        tell_deviation(parts_of(self.optimizer), of_grad)
        if self._inserted:
            self._inserted.see(self)

    def _refuse_others(self) -> None:
        """Before noise is drawn: whatever else the optimizer would step by."""
        if list(map(id, _held_by(self.optimizer))) != self._held:
            raise GuaranteeBroken(
                "optimizer: its parameters changed since training began, and it would step by what "
                "has no noise; nothing was released: give it all that it trains before"
            )


def _held_by(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
