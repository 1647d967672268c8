"""Sums of clipped vectors: where they are kept over the ranks, and who adds their noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from dpsgd_torch.gradients.vectors import Summed, zeros
from dpsgd_torch.noise.base import Noise, Release
from dpsgd_torch.noise.blocks import BLOCKS
from dpsgd_torch.noise.independent import Energies
from dpsgd_torch.training.keyed import keyed_by, keyed_by_parts
from dpsgd_torch.training.noise_by_parts import draws_in_parts, release_in_parts
from dpsgd_torch.training.shards import Shards
from dpsgd_torch.training.world import World


class Sums(Protocol):
    """Sums of one step's clipped vectors, over all ranks, and what becomes of them."""

    params: list[torch.nn.Parameter]  # whose vectors are added, as the model has them

    def begin(self) -> None:
        """Sums of nothing."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What this rank holds of them, one tensor a parameter."""

    def add(self, vectors: Summed, factors: torch.Tensor, within: float) -> float:
        """Add Σ factor × vector; returns what was rounded away, at most ``within``."""

    def release(self, noise: Noise, own: Release) -> None:
        """Leave (sum + noise) / divisor in each parameter's ``grad``; all ranks do so.

        Args:
            own: over this rank's vectors alone.
        """


class WholeSums:
    """Each rank sums its share; rank 0 adds all up in the order of ranks, and adds the noise.

    Of many values whose noise is drawn by blocks each rank adds up a part, and draws its noise.

    Args:
        keyed: whether noise hangs on the sums too.
    """

    def __init__(self, params: list[torch.nn.Parameter], world: World, *, keyed: bool) -> None:
        self.params, self._world, self._keyed = params, world, keyed
        self._sums: list[torch.Tensor] = []

    def begin(self) -> None:
        self._sums = []

    @property
    def tensors(self) -> list[torch.Tensor]:
        if not self._sums:
            self._sums = zeros(self.params)
        return self._sums

    def add(self, vectors: Summed, factors: torch.Tensor, within: float) -> float:
        if not self._sums:
            self._sums, rounded = vectors.totals(factors, within)
            return rounded
        for i, total in enumerate(self._sums):
            self._sums[i] = total.double()
        return vectors.add_to(self._sums, factors, within)

    def release(self, noise: Noise, own: Release) -> None:
        sums, self._sums = self.tensors, []
        if draws_in_parts(noise, sum(p.numel() for p in self.params), self._world):
            release_in_parts(noise, sums, self.params, own, self._world, keyed=self._keyed)
            return
        vectors = sum(self._world.exchange("the sum of a step", own.vectors))
        sums = self._world.summed(sums)

        def noised() -> None:
            rng = keyed_by(sums, own.rng) if self._keyed else own.rng
            noise.add(sums, self.params, dataclasses.replace(own, vectors=vectors, rng=rng))

        self._world.hand_round_made(noised, lambda: _grads(self.params))


class ShardedSums:
    """Each rank holds its part of the sum over all, and adds the noise of that part.

    * Sums go to whoever holds their part as soon as they are there, a few parameters at a time;
      what comes is added in float64, in the order in which ranks are, piece by piece.
    * Every rank checks the noise that it added, and all check the sum and the noise of all.
    """

    def __init__(self, shards: Shards, held: Sequence[torch.nn.Parameter], *, keyed: bool) -> None:
        self.params, self._shards, self._held = shards.params, shards, held
        self._keyed = keyed

    def begin(self) -> None:
        self._shards.begin_sums()

    @property
    def tensors(self) -> list[torch.Tensor]:
        return self._shards.sums

    def add(self, vectors: Summed, factors: torch.Tensor, within: float) -> float:
        squares = list[float]()

        def each() -> Iterator[torch.Tensor]:
            for total, error in vectors.one_by_one(factors, within):
                squares.append(error)
                yield total

        self._shards.add(each())
        return math.sqrt(sum(squares))

    def release(self, noise: Noise, own: Release) -> None:
        shards, world = self._shards, self._shards.world
        vectors = sum(world.exchange("the sum of a step", own.vectors))
        sums = shards.sums
        rng = keyed_by_parts(sums, own.rng, world) if self._keyed else own.rng
        release = dataclasses.replace(own, vectors=vectors, rng=rng)
        shards.begin_sums()
        coordinates = sum(cut.size for cut in shards.cuts)
        places = [cut.place(world.rank, number) for number, cut in enumerate(shards.cuts)]
        drawn = sum(place.stop - place.start for place in places)
        grads, found = BLOCKS.released(sums, places, self._held, release, coordinates)
        BLOCKS.refuse(found, drawn, release, coordinates)
        told = world.exchange("the noise of a step", [found.of_sum, found.of_noise])
        energies = (math.fsum(each) for each in zip(*told, strict=True))
        BLOCKS.refuse(Energies(*energies), coordinates, release, coordinates)
        for p, grad in zip(self._held, grads, strict=True):
            p.grad = grad


def _grads(params: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Where each parameter's gradient is, or is to be."""
    for p in params:
        if p.grad is None:
            p.grad = torch.empty_like(p)
    return [p.grad for p in params if p.grad is not None]
