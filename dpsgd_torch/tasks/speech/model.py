"""The keyword-spotting network of MLPerf Tiny: DS-CNN."""

from __future__ import annotations

import torch
from torch import nn

from dpsgd_torch.tasks.blocks import convolution, he_, separable
from dpsgd_torch.tasks.speech.features import COEFFICIENTS, FRAMES

_CHANNELS = 64


def ds_cnn(generator: torch.Generator, classes: int, norm: str) -> nn.Module:
    """(batch, 1, 49, 10) → (batch, classes): a 10×4 convolution and four separable ones.

    [Zhang et al. 2017, Table 6; Banbury et al. 2021, §4.1]; in place of batch normalisation
    ``norm``. The benchmark's own has 23,756 trained parameters.

    >>> [sum(p.numel() for p in ds_cnn(torch.Generator(), 12, norm).parameters())
    ...  for norm in ("group", "none")]
    [23756, 22604]
    """
    after = (-(-FRAMES // 2), -(-COEFFICIENTS // 2))
    wide = (_CHANNELS, _CHANNELS)
    layers = convolution((FRAMES, COEFFICIENTS), (1, _CHANNELS), (10, 4), norm, stride=2)
    for _ in range(4):
        layers += separable(after, wide, norm)
    layers += [nn.AvgPool2d(after), nn.Flatten(), nn.Linear(_CHANNELS, classes)]
    return he_(nn.Sequential(*layers), generator)
