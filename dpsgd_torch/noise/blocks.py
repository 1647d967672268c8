"""Independent Gaussian noise by blocks: anyone draws any part of it, and always the same."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from accountant import Event
from dpsgd_torch.mechanisms.gaussian import fill_normal, grid
from dpsgd_torch.noise.base import Noise, Release, State, StepPlan
from dpsgd_torch.noise.independent import INDEPENDENT, Energies, noised, refuse_unplanned
from dpsgd_torch.samplers.base import Sampler

BLOCK = 1 << 16  # elements that are drawn from one key


@dataclass(frozen=True)
class Place:
    """Elements ``start`` to ``stop`` of the flattened parameter number ``parameter``, of ``size``.

    Parameters are numbered in the optimizer's order.
    """

    parameter: int
    start: int
    stop: int
    size: int


class BlockGaussian(Noise):
    """Gaussian noise of deviation noise multiplier × clip norm, whoever draws which part of it.

    * Its law, what it costs and what it checks are ``IndependentGaussian``'s.
    * Block b of parameter p is drawn from a key of its own, (the step's key, p, b): blocks are
      independent, and what a range of elements gets hangs on nobody else's.
    * Blocks are drawn by as many threads as torch has; none changes what is drawn.
    """

    name: ClassVar[str] = "independent, by blocks"
    not_covered: ClassVar[str] = INDEPENDENT.not_covered

    def check(self, sampler: Sampler) -> None:
        INDEPENDENT.check(sampler)

    def charges(
        self, step: int, noise_multiplier: float, sampler: Sampler, first: int = 0
    ) -> Event:
        return INDEPENDENT.charges(step, noise_multiplier, sampler, first)

    def deviation(self, plan: StepPlan, state: State | None = None) -> float:
        del state
        return plan.noise_multiplier * plan.clip_norm

    def describe(self, first: StepPlan, last: StepPlan) -> str:
        return INDEPENDENT.describe(first, last)

    def add(
        self, sums: Sequence[torch.Tensor], params: Sequence[torch.nn.Parameter], release: Release
    ) -> None:
        places = [Place(i, 0, p.numel(), p.numel()) for i, p in enumerate(params)]
        coordinates = sum(p.numel() for p in params)
        flat = [summed.reshape(-1) for summed in sums]
        grads, found = self.released(flat, places, params, release, coordinates)
        self.refuse(found, coordinates, release, coordinates)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.view(p.shape)

    def released(
        self,
        sums: Sequence[torch.Tensor],
        places: Sequence[Place],
        params: Sequence[torch.nn.Parameter],
        release: Release,
        coordinates: int,
    ) -> tuple[list[torch.Tensor], Energies]:
        """(sum + noise) / divisor of each place, in its parameter's precision; and what to check.

        Nothing of it may be used before ``refuse`` has seen all places of all ranks.

        Args:
            sums: flat, one a place; one is let go of as soon as it was used where it is a list.
            params: what each place is of, for its dtype.
            coordinates: of all places of all ranks.
        """
        std, step = _scales(release, coordinates)
        grads, energies = list[torch.Tensor](), list[Energies]()
        with _workers() as each:
            for at, place in enumerate(places):
                summed = sums[at]
                if isinstance(sums, list):
                    sums[at] = summed[:0]
                grad = torch.empty_like(summed, dtype=params[at].dtype)
                work = _Piece(summed, grad, place, release, std, step)
                energies += each(work, range(place.start // BLOCK, -(-place.stop // BLOCK)))
                grads.append(grad)
        of_sum = math.fsum(each.of_sum for each in energies)
        return grads, Energies(of_sum, math.fsum(each.of_noise for each in energies))

    def refuse(self, found: Energies, drawn: int, release: Release, coordinates: int) -> None:
        """Refuse what ``released`` gave for ``drawn`` of so many ``coordinates``.

        Raises:
            GuaranteeBroken: nothing may be released.
        """
        if drawn:
            std, step = _scales(release, coordinates)
            refuse_unplanned(found, std, step, drawn, release)


BLOCKS = BlockGaussian()


@dataclass(frozen=True)
class _Piece:
    """One place's noise, block by block."""

    summed: torch.Tensor
    grad: torch.Tensor
    place: Place
    release: Release
    std: float
    step: float

    def __call__(self, block: int) -> Energies:
        first = block * BLOCK
        drawn = np.empty(min(BLOCK, self.place.size - first))
        fill_normal(_keyed(self.release.rng, self.place.parameter, block), drawn)
        low, high = max(first, self.place.start), min(first + len(drawn), self.place.stop)
        here = slice(low - self.place.start, high - self.place.start)
        exact = self.summed[here].to(torch.float64, copy=True)
        noisy, energies = noised(exact, drawn[low - first : high - first], self.std, self.step)
        self.grad[here] = noisy.div_(self.release.divisor)
        return energies


def _keyed(rng: np.random.Generator, parameter: int, block: int) -> np.random.Generator:
    """The generator of one block, by the key of a generator that nobody has drawn from.

    >>> first, again, other = (
    ...     _keyed(np.random.default_rng(7), 0, block).random() for block in (3, 3, 4))
    >>> first == again, first == other
    (True, False)
    """
    key: Any = rng.bit_generator.seed_seq
    spawned = (*key.spawn_key, parameter, block)
    seed = np.random.SeedSequence(key.entropy, spawn_key=spawned, pool_size=key.pool_size)
    return np.random.Generator(np.random.PCG64DXSM(seed))


def _scales(release: Release, coordinates: int) -> tuple[float, float]:
    """The noise's deviation, and the step of the grid."""
    clip_norm = release.plan.clip_norm
    std = release.plan.noise_multiplier * clip_norm
    return std, grid(min(std, clip_norm) or clip_norm, coordinates, std)


@contextlib.contextmanager
def _workers() -> Iterator[Callable[[_Piece, range], Iterator[Energies]]]:
    """A map over blocks, in order, by as many threads as torch has."""
    count = torch.get_num_threads()
    if count == 1:
        yield map
        return
    with ThreadPoolExecutor(count) as pool:
        yield pool.map
