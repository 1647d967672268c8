"""Whitening by the principal directions of made-up images, and scaling each vector to one norm.

z = Vᵀ(f − μ) / √(s² + λ), then z · norm / ‖z‖: V, s² and μ are of the made-up images' features, so
that a row's z depends on that row alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from scipy.linalg import eigh

_TINY = 1e-12  # a row without features stays near 0
_MORE, _ITERATIONS = 50, 4  # directions beyond those kept, and turns, of a subspace iteration


@dataclass(frozen=True)
class Whitening:
    """(n, features) → (n, directions) of L2 norm ``norm``.

    Attributes:
        mean: (features,).
        directions: (features, k), each divided by √(variance + λ).
    """

    mean: torch.Tensor
    directions: torch.Tensor
    norm: float

    @classmethod
    def of(cls, features: torch.Tensor, *, count: int, ridge: float, norm: float) -> Self:
        """By the ``count`` directions of largest variance of (n, features).

        >>> made_up = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> z = Whitening.of(made_up, count=3, ridge=0.1, norm=4.0)(made_up)
        >>> z.shape, z.norm(dim=1).allclose(torch.tensor(4.0))
        (torch.Size([50, 3]), True)
        """
        mean = features.mean(dim=0)
        centred = features - mean
        covariance = centred.T @ centred / len(features)
        variances, vectors = _largest(covariance, count)
        signs = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
        directions = vectors * signs * (variances.clamp_min(0) + ridge).rsqrt()
        return cls(mean, directions.flip(1).float().contiguous(), norm)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        z = (features - self.mean) @ self.directions
        return z * (self.norm / z.norm(dim=1, keepdim=True).clamp_min(_TINY))


def _largest(covariance: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` largest variances, ascending, and their directions as columns.

    Of a large matrix by subspace iteration from a drawn start [Halko, Martinsson, Tropp 2011,
    Alg. 4.4], a third of the time of all of its directions; what is found is orthonormal.
    """
    size = len(covariance)
    if size <= 2 * (count + _MORE):
        return _ascending(covariance, count)
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(size, count + _MORE, generator=generator)
    for _ in range(_ITERATIONS):
        found = torch.linalg.qr(covariance @ found)[0]
    variances, turned = _ascending(found.T @ (covariance @ found), count)
    return variances, found.double() @ turned


def _ascending(matrix: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    size = len(matrix)
    top = [max(0, size - count), size - 1]
    variances, vectors = eigh(matrix.double().numpy(), subset_by_index=top)
    return torch.from_numpy(variances), torch.from_numpy(vectors)
