"""The visual-wake-words network of MLPerf Tiny: MobileNetV1, a quarter as wide."""

from __future__ import annotations

import torch
from torch import nn

from dpsgd_torch.tasks.blocks import convolution, he_, separable

SIDE = 96
_BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *(((128, 1),) * 5), (256, 2),
           (256, 1))  # fmt: skip


def mobilenet(generator: torch.Generator, classes: int, norm: str) -> nn.Sequential:
    """(batch, 3, 96, 96) → (batch, classes): 13 separable convolutions, channels × 0.25.

    [Howard et al. 2017, Table 1; Banbury et al. 2021, §4.2]; in place of batch normalisation
    ``norm``. The benchmark's own has 216,322 trained parameters.

    >>> [sum(p.numel() for p in mobilenet(torch.Generator(), 2, norm).parameters())
    ...  for norm in ("group", "none")]
    [216322, 210850]
    """
    layers = convolution((SIDE, SIDE), (3, 8), (3, 3), norm, stride=2)
    side, channels = SIDE // 2, 8
    for wide, stride in _BLOCKS:
        layers += separable((side, side), (channels, wide), norm, stride=stride)
        side, channels = side // stride, wide
    layers += [nn.AvgPool2d(side), nn.Flatten(), nn.Linear(channels, classes)]
    model = nn.Sequential(*layers)
    he_(model, generator)
    return model
