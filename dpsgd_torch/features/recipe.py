"""Recipe of image features: which transform, whitened by which made-up images, and how."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dpsgd_torch.errors import ConfigError, PrivateDataWarning, outside
from dpsgd_torch.features.cache import digest, kept
from dpsgd_torch.features.convolutions import RandomConvolutions
from dpsgd_torch.features.frozen import opened
from dpsgd_torch.features.made_up.kinds import MADE_UP, NONE, made_up
from dpsgd_torch.features.model_files.named import ModelFile
from dpsgd_torch.features.pretrained import WIDTH, Pretrained
from dpsgd_torch.features.scattering import Scattering
from dpsgd_torch.features.whitening import Whitening

_MADE = 8000  # images to whiten by
_SEED = 20261129
_GAIN = 20  # of the logarithm: a scattering value of 1/20 is where it bends
_SHARE = 0.1  # λ of convolutions and of the network's values: of their mean variance
_ROWS = 500  # at once: what lies between image and features is 8 MB a thousand values
_PROBED = 10  # made-up images that a user's model is tried on
_SLOW = 5000  # rows from which on it is said that this takes a while

_PACE = {True: "about 1 ms each; ", False: ""}
_ALONE = "alone: no class knowledge"

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
        norm: of every row's features, and of the network's again.
        pretrained_on: made-up images with classes, of which a CNN learnt what it says of others:
            192 values more; "none" for none.
        scattering: whether the transform is among them.
        model: a frozen model of the user's, whose values are whitened likewise: as many more.
        kernels: of random convolutions, cut from the images that whiten; as many directions of
            theirs more; None for none.

    >>> recipe = Recipe(made_up="leaves", directions=5, scales=1, made=100)
    >>> recipe(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 5])
    """

    made_up: str
    directions: int
    ridge: float = 0.3
    scales: int = 2
    norm: float = 4.0
    made: int = _MADE
    pretrained_on: str = NONE
    scattering: bool = True
    model: ModelFile | None = None
    kernels: int | None = None
    folder: Path | None = None
    """To keep the basis and all features in; none: nowhere."""

    def __post_init__(self) -> None:
        others = self.model is not None or self.kernels is not None
        if not self.scattering and not others and self.pretrained_on == NONE:
            raise ConfigError("recipe: takes no features; ask for scattering, a CNN or a model")

    @property
    def settings(self) -> tuple[object, ...]:
        model = self.model and self.model.sha256
        return (*self._ours, self.pretrained_on, self.kernels, self.scattering, model)

    @property
    def _ours(self) -> tuple[object, ...]:
        """What the whitened transform rests on."""
        return self.made_up, self.directions, self.ridge, self.scales, self.norm, self.made

    @property
    def prior(self) -> str:
        """What is known beforehand, in words for the statement."""
        fixed = ["a fixed scattering transform"] if self.scattering else []
        if self.kernels is not None:
            fixed.append(f"{self.kernels} random convolutions")
        parts = [" and ".join(fixed)] if fixed else []
        if self.pretrained_on != NONE:
            parts.append(f"what a CNN learnt of {made_up(self.pretrained_on).prior}")
        if self.model:
            parts.append(f"what the frozen model {self.model.name} says of it")
        if self.made_up != NONE:
            by = "whitened by" if self.kernels is None else "cut from and whitened by"
            parts[0] += f", {by} {made_up(self.made_up).prior}"
        words = "; and ".join(parts)
        return words if self.model or set(self._made_of) != {NONE} else f"{words} {_ALONE}"

    @property
    def knows_classes(self) -> bool:
        """Whether any made-up images that went into it show the classes of somebody's task."""
        return any(each in MADE_UP and MADE_UP[each].knows_classes for each in self._made_of)

    @property
    def learnt_from(self) -> str:
        """The made-up images whose classes a head can begin from."""
        return self.made_up if self.pretrained_on == NONE else self.pretrained_on

    @property
    def _made_of(self) -> tuple[str, str]:
        return self.made_up, self.pretrained_on

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Each row's features, from it and made-up images alone, and what a model learnt before.

        Raises:
            ConfigError: the model's file is gone or another one, also where features are kept.
        """
        if self.model:
            self.model.content()
        if self.folder is None:
            return self._made(images)
        key = digest(images, self.settings)
        return kept(key, lambda: self._made(images, told=True), what="rows", folder=self.folder)

    def fresh(self, images: torch.Tensor) -> torch.Tensor:
        """The same, made anew and not kept."""
        return self._made(images)

    def _made(self, images: torch.Tensor, told: bool = False) -> torch.Tensor:
        if told and len(images) >= _SLOW:
            print(
                f"features of {len(images)} images: once, {_PACE[self.model is None]}kept in "
                f"{self.folder} "
                "(mode 0700), where they are as private as the images: ε covers none of it",
                file=sys.stderr,
            )
        parts = self._parts(images.shape[-1])
        found = torch.cat(
            [torch.cat([part(some) for part in parts], dim=1) for some in images.split(_ROWS)]
        )
        unfit = ~found.isfinite().all(dim=1)
        if unfit.any():
            found[unfit] = 0.0
            warnings.warn(
                f"local, not covered by ε: features of {int(unfit.sum())} of {len(found)} rows, "
                f"the first row {int(unfit.int().argmax())}, are no numbers, and were set to 0",
                PrivateDataWarning,
                stacklevel=outside(),
            )
        return found

    def _parts(self, side: int) -> list[Transform]:
        """Those of transform, convolutions, network and model that are asked for, whitened."""
        parts: list[Transform] = []
        if self.scattering:
            scattering = _transform(side, self.scales)
            parts.append(
                _scaled(scattering, self.norm)
                if self.made_up == NONE
                else self._whitened(
                    scattering, side, self.directions, self.ridge, (side, self._ours)
                )
            )
        if self.kernels is not None:
            images, _ = made_up(self.made_up).make(self.made, side, _SEED)
            cut = RandomConvolutions.of(images, count=self.kernels)
            key = (side, self._ours, self.kernels)
            parts.append(self._whitened(cut, side, self.directions, None, key))
        if self.pretrained_on != NONE:
            net = Pretrained(made_up=self.pretrained_on, side=side, folder=self.folder)()
            by = self.pretrained_on if self.made_up == NONE else self.made_up
            theirs = (side, by, self.norm, self.made, self.pretrained_on)
            parts.append(self._whitened(net, side, WIDTH, None, theirs, by=by))
        if self.model:
            parts.append(self._of_model(self.model, side))
        return parts

    def _of_model(self, file: ModelFile, side: int) -> Transform:
        """What the user's model says, once it was seen to take each made-up image by itself."""
        frozen = opened(file, (1, side, side))
        name = "leaves" if self.made_up == NONE else self.made_up
        frozen.probe(made_up(name).make(_PROBED, side, _SEED)[0])
        if self.made_up == NONE:
            return _scaled(frozen, self.norm)
        key = (side, "model", file.sha256, self.made_up, self.directions, self.norm, self.made)
        return self._whitened(frozen, side, self.directions, None, key)

    def _whitened(
        self,
        transform: Transform,
        side: int,
        count: int,
        ridge: float | None,
        key: tuple[object, ...],
        by: str = "",
    ) -> Transform:
        """By made-up images; ``ridge`` None is a tenth of the mean variance."""

        def make() -> torch.Tensor:
            images, _ = made_up(by or self.made_up).make(self.made, side, _SEED)
            features = torch.cat([transform(part) for part in images.split(_ROWS)])
            if not features.isfinite().all():
                raise ConfigError("features: of made-up images are no numbers; take another model")
            added = float(features.var(dim=0).mean()) * _SHARE if ridge is None else ridge
            found = Whitening.of(features, count=count, ridge=added, norm=self.norm)
            return torch.cat([found.mean[:, None], found.directions], dim=1)

        if self.folder is None:
            basis = make()
        else:
            basis = kept(digest(*key), make, what="basis", folder=self.folder)
        whiten = Whitening(basis[:, 0], basis[:, 1:], self.norm)
        return lambda images: whiten(transform(images))


def _scaled(transform: Transform, norm: float) -> Transform:
    def scaled(images: torch.Tensor) -> torch.Tensor:
        features = transform(images)
        return features * (norm / features.norm(dim=1, keepdim=True).clamp_min(1e-12))

    return scaled


def _transform(side: int, scales: int) -> Transform:
    scattering = Scattering(side=side, scales=scales)
    return lambda images: torch.log1p(_GAIN * scattering(images).flatten(1))
