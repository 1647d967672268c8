"""Independent Gaussian noise drawn where the sums are: on the GPU, from a counter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch

from dpsgd_torch.mechanisms.gaussian import FAR, beyond, grid
from dpsgd_torch.noise.base import Release
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.noise.measured import check_sum_and_noise
from dpsgd_torch.noise.philox import KEY, Words, keyed_words

_PIECE = {"cpu": 1 << 16, "cuda": 1 << 22}  # coordinates noised at once: in the cache, or few calls


class OnDevice(IndependentGaussian):
    """Gaussian noise of the same law as independent noise, from Philox with a key of 256 bits.

    * The key is drawn anew in each step from the run's noise stream; a coordinate's number hangs on
      the key and on its place among all coordinates alone, so that it is the same on every device
      and however many are drawn at once, to the last digits of the inverse.
    * A coordinate takes 128 bits of its own: none shares a radius with another.
    * All else is as in ``IndependentGaussian``: float64, an endless tail, a public grid, and the
      checks of every release.
    """

    name: ClassVar[str] = "independent, philox"
    not_covered: ClassVar[str] = (
        "what computers cannot draw exactly: noise is drawn in float64 by the inverse of the "
        "normal distribution, without a largest value, and told on a public grid, so that the "
        "known attacks on pairs, tails and last bits fail; its law is a Gaussian's to within "
        "2^-50 of each number, not exactly. Its generator (Philox) is keyed with 256 secret bits "
        "and is not a cryptographic one."
    )

    def add(
        self, sums: Sequence[torch.Tensor], params: Sequence[torch.nn.Parameter], release: Release
    ) -> None:
        clip_norm, coordinates = release.plan.clip_norm, sum(p.numel() for p in params)
        std = release.plan.noise_multiplier * clip_norm
        step = grid(min(std, clip_norm) or clip_norm, coordinates, std)
        key, start = release.rng.bytes(KEY), 0
        energies = [torch.zeros(2, dtype=torch.float64, device=sums[0].device)] if sums else []
        made = [torch.empty(p.numel(), dtype=p.dtype, device=p.device) for p in params]
        for exact, targets in _pieces(sums, made):
            noisy = normal(key, start, exact.numel(), exact.device, release.rng).mul_(std)
            noisy.add_(exact).div_(step).round_().mul_(step)
            moved = exact - noisy
            energies.append(torch.stack([exact @ exact, moved @ moved]).to(energies[0].device))
            noisy.div_(release.divisor)
            for target, part in zip(
                targets, noisy.split([t.numel() for t in targets]), strict=True
            ):
                target.copy_(part)
            start += exact.numel()
        total, added = torch.stack(energies).sum(0).tolist() if energies else (0.0, 0.0)
        check_sum_and_noise(math.sqrt(total), added, std, step, coordinates, release)
        for p, gradient in zip(params, made, strict=True):
            p.grad = gradient.view(p.shape)


ON_DEVICE = OnDevice()


def normal(
    key: bytes, start: int, count: int, device: torch.device, rng: np.random.Generator
) -> torch.Tensor:
    """(count,) standard normal numbers, those of the coordinates from ``start`` on.

    The inverse of the distribution, at a number below ½ of 127 bits and with a sign of one: small
    ones, far out, have as many digits as others. Beyond ``FAR`` each is replaced by one of ``rng``
    from the tail's exact law.
    """
    numbers = from_words(keyed_words(key, start, count, device))
    if count and float(numbers.abs().max()) > FAR:
        for i in (numbers.abs() > FAR).nonzero().flatten().tolist():
            numbers[i] = math.copysign(beyond(rng), float(numbers[i]))
    return numbers


def from_words(words: Words) -> torch.Tensor:
    """Standard normal numbers of 128 bits each.

    >>> half = [torch.tensor([word]) for word in (0x7FFFFFFF, 0xFFFFFFFF, 0, 0)]
    >>> abs(float(from_words(half))) < 1e-9
    True
    """
    first, *rest = words
    below = rest[-1].double() + 0.5
    for word in rest[-2::-1]:
        below = below * 2.0**-32 + word
    below = (below * 2.0**-32 + (first & 0x7FFFFFFF)) * 2.0**-32
    return torch.special.ndtri(below) * (1 - 2 * (first >> 31))


def _pieces(
    sums: Sequence[torch.Tensor], made: Sequence[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """The sums laid in a row, float64, some at once; and where what becomes of each belongs."""
    held, targets, size = list[torch.Tensor](), list[torch.Tensor](), 0
    for total, target in zip(sums, made, strict=True):
        flat, most = total.reshape(-1), _PIECE.get(total.device.type, 1 << 16)
        moved = bool(held) and held[0].device != flat.device
        start = 0
        while start < flat.numel():
            if moved or size >= most:
                yield torch.cat(held), targets
                held, targets, size, moved = [], [], 0, False
            end = min(flat.numel(), start + most - size)
            held.append(flat[start:end].double())
            targets.append(target[start:end])
            size, start = size + end - start, end
    if held:
        yield torch.cat(held), targets
