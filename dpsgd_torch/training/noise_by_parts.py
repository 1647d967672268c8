"""Noise by parts: each rank adds up one part of a step's sums, and draws the noise of that part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import reduce
from typing import TypeGuard

import torch

from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.noise.base import Noise, Release
from dpsgd_torch.noise.blocks import BlockGaussian, Place
from dpsgd_torch.noise.independent import Energies
from dpsgd_torch.training.keyed import keyed_by_parts
from dpsgd_torch.training.world import World

_FEW = 1 << 17  # values of all ranks of which rank 0 draws all: fewer messages are faster then


def draws_in_parts(noise: Noise, count: int, world: World) -> TypeGuard[BlockGaussian]:
    """Whether ``count`` coordinates are many enough, of noise that anyone draws any part of.

    What is released is the same either way, bit for bit.
    """
    return isinstance(noise, BlockGaussian) and not world.is_alone and count * world.size > _FEW


def release_in_parts(
    noise: BlockGaussian,
    sums: list[torch.Tensor],
    params: Sequence[torch.nn.Parameter],
    own: Release,
    world: World,
    *,
    keyed: bool,
) -> None:
    """Leave (sum + noise) / divisor in each parameter's ``grad``, on all ranks, or raise on all.

    * Parts are equal, one a rank, in the order of parameters: each coordinate is in one of them.
    * What ranks have of a part is added in float64, in the order of ranks.
    * Each rank checks the noise that it drew, and all check that parts are all there are, the norm
      of the whole sum and the energy of all the noise, before any of it is used.

    Args:
        sums: this rank's, let go of as they are sent.
        own: over this rank's vectors alone.
        keyed: whether noise hangs on the sums of all ranks too.

    Raises:
        GuaranteeBroken: what was added is not what was planned, on this rank or on another.
    """
    count = sum(p.numel() for p in params)
    # float32 sums hold all there is, and zeros of nobody do too: half as much is sent
    short = not own.vectors or all(total.dtype == torch.float32 for total in sums)
    said = world.exchange("the sum of a step", [own.vectors, short])
    dtype = torch.float32 if all(each for _, each in said) else torch.float64
    part = -(-count // world.size)
    mine = world.sum_of_part(_in_a_row(sums, part * world.size, dtype).view(world.size, part))
    start = min(world.rank * part, count)
    stop = min(start + part, count)
    mine = mine[: stop - start]
    release = dataclasses.replace(own, vectors=sum(vectors for vectors, _ in said))
    if keyed:
        release = dataclasses.replace(release, rng=keyed_by_parts([mine], own.rng, world))
    places = places_between(start, stop, [p.numel() for p in params])
    here = list(mine.split([place.stop - place.start for place in places]))
    grads, found = noise.released(
        here, places, [params[place.parameter] for place in places], release, count
    )
    noise.refuse(found, stop - start, release, count)
    told = world.exchange("the noise of a step", [start, stop, found.of_sum, found.of_noise])
    _refuse_gaps([(first, last) for first, last, *_ in told], count)
    whole = Energies(math.fsum(each[2] for each in told), math.fsum(each[3] for each in told))
    noise.refuse(whole, count, release, count)
    wide = reduce(torch.promote_types, (p.dtype for p in params))
    released = mine.new_empty((world.size, part), dtype=wide)
    released[world.rank, : stop - start] = _in_a_row(grads, stop - start, wide)
    world.hand_round_parts(released)
    flat = released.view(-1)[:count].split([p.numel() for p in params])
    for p, grad in zip(params, flat, strict=True):
        p.grad = grad.view(p.shape).to(p.dtype)


def places_between(start: int, stop: int, sizes: Sequence[int]) -> list[Place]:
    """What of each parameter lies in a range of all coordinates, laid in a row.

    >>> [(p.parameter, p.start, p.stop) for p in places_between(2, 9, [3, 0, 4, 5])]
    [(0, 2, 3), (2, 0, 4), (3, 0, 2)]
    """
    found, first = [], 0
    for number, size in enumerate(sizes):
        low, high = max(start - first, 0), min(stop - first, size)
        if low < high:
            found.append(Place(number, low, high, size))
        first += size
    return found


def _in_a_row(tensors: list[torch.Tensor], length: int, dtype: torch.dtype) -> torch.Tensor:
    """The tensors flat, one after the other, and zeros up to ``length``; they are let go of."""
    device = tensors[0].device if tensors else None
    flat, at = torch.zeros(length, dtype=dtype, device=device), 0
    for i, tensor in enumerate(tensors):
        flat[at : at + tensor.numel()] = tensor.reshape(-1)
        at += tensor.numel()
        tensors[i] = tensor.new_empty(0)
    return flat


def _refuse_gaps(parts: list[tuple[int, int]], count: int) -> None:
    """Each coordinate has the noise of one rank, and of one alone."""
    ends = [0, *(stop for _, stop in parts)]
    if ends[:-1] != [start for start, _ in parts] or ends[-1] != count:
        raise GuaranteeBroken(
            f"noise: ranks drew that of {parts} of {count} values: each must have that of one "
            "rank; nothing was released: report this"
        )
