"""The clip norm that follows a private quantile: state of a run, told by each step's count."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dpsgd_torch.clipping.adaptive import AdaptiveClipping
from dpsgd_torch.errors import GuaranteeBroken, RunError
from dpsgd_torch.mechanisms.gaussian import grid, normal, to_grid
from dpsgd_torch.noise.base import Release, StepPlan
from dpsgd_torch.training.keyed import digested, told_by
from dpsgd_torch.training.world import World

_OWN = 0xC0047  # the count's key beside the sum's


class FollowedClipNorm:
    """C as it is now: fixed while a step is taken, moved by what the step told.

    * Rank 0 adds the noise and says what C is next; all ranks, and every checkpoint, hold that.
    * The count's noise comes from a key of its own below the step's, so that a step that is
      repeated bit for bit tells the same; where noise hangs on the sums, it hangs on the count
      and on them: counts are often equal where sums are not, and equal noise would tell so.
    """

    def __init__(self, clipping: AdaptiveClipping, first: float) -> None:
        self.clipping, self._first, self.clip_norm = clipping, first, first
        self._count = 0.0

    def now(self, plan: StepPlan) -> StepPlan:
        """The plan of a step, at the clip norm that it has."""
        return dataclasses.replace(plan, clip_norm=self.clip_norm)

    def begin(self) -> None:
        self._count = 0.0

    def see(self, norms: torch.Tensor) -> None:
        """Count finite norms, before the clip."""
        self._count += float(self.clipping.counted(norms.double(), self.clip_norm).sum())

    def release(self, own: Release, world: World, sums: Sequence[torch.Tensor] | None) -> None:
        """Tell the noisy count over all ranks, and move the clip norm by it.

        Args:
            own: over this rank's vectors alone.
            sums: those of this rank, where noise hangs on them; else None.

        Raises:
            GuaranteeBroken: the count is more than its vectors can make it.
        """
        said = "" if sums is None else digested(sums).hex()
        told = world.exchange("the count of a step", [self._count, own.vectors, said])
        counts, sizes, digests = zip(*told, strict=True)
        total, vectors, hung = math.fsum(counts), math.fsum(sizes), "".join(digests)
        if not abs(total) <= vectors / 2:
            raise GuaranteeBroken(
                f"count of clipped vectors: is further from 0 than {vectors:g} vectors can move "
                "it; nothing was released: report this"
            )

        def moved() -> float:
            noisy = noised_count(total, own.plan.count_noise, own.rng, hung)
            return self.clipping.next(self.clip_norm, noisy / own.divisor, self._first)

        self.clip_norm = world.first(moved, "the clip norm")

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {"clip_norm": torch.tensor(self.clip_norm, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's clip norm.

        Raises:
            RunError: no run that began at this one's gets there.
        """
        kept, most = float(state["clip_norm"]), self.clipping.limit * (1 + 1e-9)
        if not 1 / most <= kept / self._first <= most:
            raise RunError(
                f"clip norm = {kept:g} in the checkpoint: must be within {self.clipping.limit:g} "
                f"times {self._first:g} either way; restore the checkpoint, or start a new run"
            )
        self.clip_norm = kept


def noised_count(total: float, deviation: float, rng: np.random.Generator, hung: str = "") -> float:
    """A count plus Gaussian noise of this deviation, on a public grid.

    Args:
        hung: what the noise hangs on beside the key, the count included; nothing where empty.
    """
    key: Any = rng.bit_generator.seed_seq
    seed = np.random.SeedSequence(
        key.entropy, spawn_key=(*key.spawn_key, _OWN), pool_size=key.pool_size
    )
    own = np.random.Generator(np.random.PCG64DXSM(seed))
    if hung:
        secret = seed.generate_state(8).tobytes()
        content = struct.pack("<d", total) + hung.encode()
        own = told_by(hashlib.blake2b(content, key=secret, digest_size=32).digest(), rng)
    step = grid(min(0.5, deviation) or 0.5, 1, deviation)
    return to_grid(total + deviation * normal(own), step)
