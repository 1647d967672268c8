"""The image-classification network of MLPerf Tiny: ResNet-8."""

from __future__ import annotations

import torch
from torch import nn

from dpsgd_torch.tasks.blocks import convolution, he_

SIDE = 32


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut: the input itself, or a 1×1 convolution of it."""

    def __init__(self, side: int, channels: tuple[int, int], norm: str, stride: int) -> None:
        super().__init__()
        after, wide = side // stride, channels[1]
        self.body = nn.Sequential(
            *convolution((side, side), channels, (3, 3), norm, stride=stride),
            *convolution((after, after), (wide, wide), (3, 3), norm, relu=False),
        )
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else nn.Conv2d(*channels, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels[0], side, side) → (batch, channels[1], side / stride, side / stride)."""
        found: torch.Tensor = self.relu(self.shortcut(x) + self.body(x))
        return found


def resnet8(generator: torch.Generator, classes: int, norm: str) -> nn.Module:
    """(batch, 3, 32, 32) → (batch, classes): three residual blocks of 16, 32, 64 channels.

    [He et al. 2016, §4.2; Banbury et al. 2021, §4.3]; in place of batch normalisation ``norm``.
    The benchmark's own has 78,186 trained parameters.

    >>> [sum(p.numel() for p in resnet8(torch.Generator(), 10, norm).parameters())
    ...  for norm in ("group", "none")]
    [78186, 77706]
    """
    layers = [
        *convolution((SIDE, SIDE), (3, 16), (3, 3), norm),
        Residual(SIDE, (16, 16), norm, 1),
        Residual(SIDE, (16, 32), norm, 2),
        Residual(SIDE // 2, (32, 64), norm, 2),
        nn.AvgPool2d(SIDE // 4),
        nn.Flatten(),
        nn.Linear(64, classes),
    ]
    return he_(nn.Sequential(*layers), generator)
