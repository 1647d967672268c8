"""A small CNN that learnt to tell made-up images apart; what its last hidden layer says of others.

Trained on no private row: on images made for it, shifted and bent anew in every batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from dpsgd_torch.features.cache import digest, kept
from dpsgd_torch.features.made_up.kinds import labelled

WIDTH = 192  # of the last hidden layer
_CHANNELS = (16, 32, 64)
_BATCH = 128
_RATE, _WARM = 4e-3, 0.25
_SMOOTHING = 0.05
_SHIFT, _BEND = 2 / 28, 0.03  # shares of the side


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """(n, 1, side, side) in [0, 1] → (n, 192), by a CNN trained on made-up images with classes.

    Attributes:
        made_up: of which kind: one that has classes.
        side: of the images.
        images: how many are made; each is seen ``epochs`` times.
        seed: of the images, the first weights and the order.
        folder: where the weights are kept, none: nowhere.

    >>> Pretrained(made_up="signs", side=8, images=256, epochs=1)()(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 192])
    """

    made_up: str
    side: int
    images: int = 60_000
    epochs: int = 4
    seed: int = 20261129
    folder: Path | None = None

    def __call__(self) -> nn.Module:
        """The network up to its last hidden layer, trained, or read where it is kept."""
        made = labelled(self.made_up)
        net = _network(self.side, made.classes, torch.Generator().manual_seed(self.seed))

        def make() -> torch.Tensor:
            self._train(net)
            return torch.cat([p.detach().flatten() for p in net.parameters()])

        if self.folder is None:
            weights = make()
        else:
            asked = (self.made_up, self.side, self.images, self.epochs, self.seed)
            weights = kept(digest(*asked), make, what="network", folder=self.folder)
        nn.utils.vector_to_parameters(weights, net.parameters())
        return _channels_last(net)[:-1].eval().requires_grad_(False)

    def _train(self, net: nn.Sequential) -> None:
        self._tell(f"a CNN learns {self.images} made-up {self.made_up}: once, one or two minutes")
        images, classes = labelled(self.made_up).make(self.images, self.side, self.seed)
        assert classes is not None  # ``labelled`` saw to it
        generator = torch.Generator().manual_seed(self.seed + 1)
        steps = self.epochs * (self.images // _BATCH)
        optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=0.01)
        rates = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, _RATE, total_steps=max(steps, 2), pct_start=_WARM
        )
        net.train()
        for step, at in enumerate(self._batches(generator)):
            optimizer.zero_grad()
            x = bent(images[at], generator).to(memory_format=torch.channels_last)
            loss = F.cross_entropy(net(x), classes[at], label_smoothing=_SMOOTHING)
            loss.backward()
            optimizer.step()
            if step + 1 < steps:
                rates.step()
            if (step + 1) % max(1, steps // self.epochs) == 0:
                epoch = (step + 1) // max(1, steps // self.epochs)
                self._tell(f"  pass {epoch} of {self.epochs}: loss {loss.item():.3f}")

    def _batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        for _ in range(self.epochs):
            order = torch.randperm(self.images, generator=generator)
            yield from order[: len(order) // _BATCH * _BATCH].split(_BATCH)

    def _tell(self, words: str) -> None:
        if self.folder is not None:
            print(words, file=sys.stderr, flush=True)


def bent(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each shifted by up to 1/14 of its side, and bent by a smooth field drawn for it."""
    n, _, side, _ = images.shape
    knots = torch.randn(n, 2, 5, 5, generator=generator) * (2 * _BEND)
    knots = knots * torch.rand(n, 1, 1, 1, generator=generator) * 1.5
    field = F.interpolate(knots, side, mode="bicubic", align_corners=True)
    shift = (2 * torch.rand(n, 2, 1, 1, generator=generator) - 1) * (2 * _SHIFT)
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"))
    return F.grid_sample(images, (grid + field + shift).permute(0, 2, 3, 1), align_corners=False)


def _network(side: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Three convolutions, each halved, the last where five pixels are left; two dense layers."""
    layers: list[nn.Module] = []
    before = 1
    for channels in _CHANNELS:
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.GroupNorm(4, channels), nn.ReLU()]
        if channels < _CHANNELS[-1] or side >= 5:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        before = channels
    layers += [nn.Flatten(), nn.Linear(before * side**2, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU()]
    layers.append(nn.Linear(WIDTH, classes))
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(layer.bias if layer.bias is not None else torch.zeros(1))
    return _channels_last(nn.Sequential(*layers))


def _channels_last(net: nn.Sequential) -> nn.Sequential:
    """Weights laid out for convolutions on CPUs, which then take two thirds of the time."""
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net
