"""A physical batch's clip: its vectors and their factors, each held to what it may be."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpsgd_torch.clipping.base import Clipping, Group
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.gradients.apart import Apart
from dpsgd_torch.gradients.vectors import Summed, Vectors


def clipped(
    vectors: Vectors, clipping: Clipping, groups: Sequence[Group], clip_norm: float
) -> tuple[Summed, torch.Tensor]:
    """What is to be summed, and by which factors; what is not finite has 0.

    Args:
        groups: what is clipped apart; not looked at where one factor is for all.

    Raises:
        GuaranteeBroken: a vector, or a group of one, is longer than it may be.
    """
    finite = torch.isfinite(vectors.norms)
    bound = clip_norm - clip_norm * vectors.margin
    if clipping.whole:
        return vectors, _factors(vectors, clipping, bound, finite, clip_norm)
    parts = [vectors.part(group.places) for group in groups]
    factors = [
        _factors(part, clipping, group.share * bound, finite, group.share * clip_norm)
        for part, group in zip(parts, groups, strict=True)
    ]
    return Apart([group.places for group in groups], parts, factors), finite.double()


def _factors(
    vectors: Vectors, clipping: Clipping, bound: float, finite: torch.Tensor, most: float
) -> torch.Tensor:
    norms = vectors.norms
    factors = clipping.factors(norms.double(), bound).where(finite, 0.0)
    longest = int(norms.where(finite, -1.0).argmax())
    # of the longest anew, in float64; of all others by the norms that are there
    reached = (factors.abs() * norms.double()).where(finite, 0.0).max()
    found = [float(factors[longest]) * vectors.norm(longest), float(reached)]
    if wrong := [each for each in found if not each <= most]:
        raise GuaranteeBroken(
            f"clipped norm = {wrong[0]:.6g}: must be ≤ clip_norm = {most}; "
            "nothing was released: report this with the model"
        )
    return factors
