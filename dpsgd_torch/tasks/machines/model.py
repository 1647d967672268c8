"""The anomaly-detection network of MLPerf Tiny: a fully connected autoencoder."""

from __future__ import annotations

import torch
from torch import nn

from dpsgd_torch.tasks.blocks import he_, linear
from dpsgd_torch.tasks.machines.features import VALUES

_WIDTHS = (128, 128, 128, 128, 8, 128, 128, 128, 128)


def autoencoder(generator: torch.Generator, norm: str) -> nn.Module:
    """(batch, 640) → (batch, 640) through nine layers, the middle one of 8 units.

    [Koizumi et al. 2020, §4; Banbury et al. 2021, §4.4]; in place of batch normalisation ``norm``.
    The benchmark's own has 267,928 trained parameters.

    >>> [sum(p.numel() for p in autoencoder(torch.Generator(), norm).parameters())
    ...  for norm in ("group", "none")]
    [267928, 265864]
    """
    layers: list[nn.Module] = []
    before = VALUES
    for width in _WIDTHS:
        layers += [*linear(before, width, norm), nn.ReLU()]
        before = width
    return he_(nn.Sequential(*layers, nn.Linear(before, VALUES)), generator)
