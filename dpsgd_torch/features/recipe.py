"""Recipe of image features: which transform, whitened by which made-up images, and how."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dpsgd_torch.features.cache import digest, kept
from dpsgd_torch.features.made_up.kinds import NONE, made_up
from dpsgd_torch.features.scattering import Scattering
from dpsgd_torch.features.whitening import Whitening

_MADE_UP = 8000  # images to whiten by
_SEED = 20261129
_GAIN = 20  # of the logarithm: a scattering value of 1/20 is where it bends
_ROWS = 500  # at once: what lies between image and features is 8 MB a thousand values
_SLOW = 5000  # rows from which on it is said that this takes a while

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """(n, 1, side, side) in [0, 1] → (n, directions), with nothing of the data in it.

    Attributes:
        made_up: images whose mean and principal directions whiten: "digits", "objects", "leaves",
            or "none" for features as they are.
        directions: how many are kept.
        ridge: λ in z = Vᵀ(f − μ) / √(s² + λ).
        scales: of the scattering transform.
        norm: of every row's features.

    >>> recipe = Recipe(made_up="leaves", directions=5, scales=1, made=100)
    >>> recipe(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 5])
    """

    made_up: str
    directions: int
    ridge: float = 0.3
    scales: int = 2
    norm: float = 4.0
    made: int = _MADE_UP
    folder: Path | None = None
    """To keep the basis and all features in; none: nowhere."""

    @property
    def settings(self) -> tuple[object, ...]:
        return (self.made_up, self.directions, self.ridge, self.scales, self.norm, self.made)

    @property
    def prior(self) -> str:
        """What is known beforehand, in words for the statement."""
        if self.made_up == NONE:
            return "a fixed scattering transform alone: no class knowledge"
        return f"a fixed scattering transform, whitened by {made_up(self.made_up).prior}"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Each row's features, from it and made-up images alone."""
        if self.folder is None:
            return self._made(images)
        key = digest(images, self.settings)
        return kept(key, lambda: self._made(images, told=True), what="rows", folder=self.folder)

    def _made(self, images: torch.Tensor, told: bool = False) -> torch.Tensor:
        if told and len(images) >= _SLOW:
            print(
                f"features of {len(images)} images: once, some 0.5 ms each; kept in {self.folder} "
                "(mode 0700), where they are as private as the images: ε covers none of it",
                file=sys.stderr,
            )
        side = images.shape[-1]
        whiten, transform = self._whitening(side), _transform(side, self.scales)
        return torch.cat([whiten(transform(part)) for part in images.split(_ROWS)])

    def _whitening(self, side: int) -> Transform:
        if self.made_up == NONE:
            return lambda f: f * (self.norm / f.norm(dim=1, keepdim=True).clamp_min(1e-12))

        def make() -> torch.Tensor:
            images, _ = made_up(self.made_up).make(self.made, side, _SEED)
            transform = _transform(side, self.scales)
            features = torch.cat([transform(part) for part in images.split(_ROWS)])
            found = Whitening.of(features, count=self.directions, ridge=self.ridge, norm=self.norm)
            return torch.cat([found.mean[:, None], found.directions], dim=1)

        if self.folder is None:
            basis = make()
        else:
            basis = kept(digest(side, self.settings), make, what="basis", folder=self.folder)
        return Whitening(basis[:, 0], basis[:, 1:], self.norm)


def _transform(side: int, scales: int) -> Transform:
    scattering = Scattering(side=side, scales=scales)
    return lambda images: torch.log1p(_GAIN * scattering(images).flatten(1))
