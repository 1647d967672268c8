"""Random convolutions: kernels cut from made-up images, whitened; nothing in them is learnt.

Each patch of an image is freed of its mean and contrast, p̂ = (p − p̄) / √(var p + c), and whitened
by other patches' covariance (ZCA), z = (Σ + λ)^−½ (p̂ − μ); a kernel w is one patch so treated, at
norm 1 [Coates, Ng 2011, Sec. 3.2 and 4.2]. What is kept of a response r = w·z is max(0, r − α) and
max(0, −r − α), averaged over the cells of a grid. Each image is taken by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch.nn import functional as F

from dpsgd_torch.errors import ConfigError

_CONTRAST = 0.01  # c: a deviation of 0.1, below which a patch counts as rather flat
_FLAT = 0.02  # a patch of less deviation is none to cut a kernel from
_RIDGE = 0.1  # λ, as a share of the mean variance
_BEND = 0.25  # α
_PATCHES = 100_000  # to whiten by
_AT_ONCE = 10  # images: what lies between stays in the processor's cache, six times as fast


@dataclass(frozen=True)
class RandomConvolutions:
    """(n, 1, side, side) in [0, 1] → (n, 2 · kernels · grid²), float32.

    Attributes:
        kernels: (count, size²) of norm 1, of whitened patches.
        mean: (size²,), μ.
        whitening: (size², size²), (Σ + λ)^−½.
        grid: cells to a side that responses are averaged over.
    """

    kernels: torch.Tensor
    mean: torch.Tensor
    whitening: torch.Tensor
    grid: int

    @classmethod
    def of(
        cls, images: torch.Tensor, *, count: int, size: int = 6, grid: int = 3, seed: int = 0
    ) -> Self:
        """``count`` kernels of size × size, cut at random from (n, 1, side, side) images.

        Raises:
            ConfigError: an image has fewer patches than the grid has cells.

        >>> images = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> RandomConvolutions.of(images, count=5)(images[:2]).shape
        torch.Size([2, 90])
        """
        side = images.shape[-1]
        if side - size + 1 < grid:
            raise ConfigError(
                f"kernels = {count}: images of side {side} have no {grid}×{grid} patches of side "
                f"{size}; leave --kernels out"
            )
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(images), (_PATCHES,), generator=generator)
        row, column = torch.randint(side - size + 1, (2, _PATCHES), generator=generator)
        patches = images[:, 0].unfold(1, size, 1).unfold(2, size, 1)[which, row, column].flatten(1)
        patches = _levelled(patches[patches.std(dim=1) > _FLAT])
        mean = patches.mean(dim=0)
        centred = patches - mean
        variances, vectors = torch.linalg.eigh((centred.T @ centred / len(centred)).double())
        scales = (variances + _RIDGE * variances.mean()).rsqrt()
        whitening = (vectors * scales @ vectors.T).float()
        kernels = centred[:count] @ whitening
        return cls(kernels / kernels.norm(dim=1, keepdim=True), mean, whitening, grid)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        size = round(len(self.mean) ** 0.5)
        filters = self.kernels @ self.whitening
        offsets = (filters @ self.mean)[:, None]
        filters = filters - filters.mean(dim=1, keepdim=True)  # frees each patch of its mean
        filters = filters.view(-1, 1, size, size)
        cells = _cells(images.shape[-1] - size + 1, self.grid)
        return torch.cat(
            [_pooled(some, filters, offsets, cells) for some in images.float().split(_AT_ONCE)]
        )


def _pooled(
    images: torch.Tensor, filters: torch.Tensor, offsets: torch.Tensor, cells: torch.Tensor
) -> torch.Tensor:
    size = filters.shape[-1]
    mean = F.avg_pool2d(images, size, 1)
    variance = (F.avg_pool2d(images.square(), size, 1) - mean.square()).clamp_min(0)
    found = F.conv2d(images, filters).mul_((variance + _CONTRAST).rsqrt())
    found = found.flatten(2).sub_(offsets)
    above = (found - _BEND).clamp_min_(0) @ cells
    below = found.neg_().sub_(_BEND).clamp_min_(0) @ cells
    return torch.cat([above, below], dim=1).flatten(1)


def _levelled(patches: torch.Tensor) -> torch.Tensor:
    """(n, pixels), each without its mean and contrast."""
    centred = patches - patches.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + _CONTRAST).sqrt()


def _cells(side: int, grid: int) -> torch.Tensor:
    """(side², grid²): the weights whose products are means over cells of near equal size."""
    each = torch.eye(side**2).view(side**2, 1, side, side)
    return F.adaptive_avg_pool2d(each, grid).flatten(1)
