"""Small networks of the layers that torch ships, for the zoo: recurrent, attending, tied, raw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CLASSES = 10


class Recurrent(nn.Module):
    """A sequence's class from what is left of it at its end."""

    def __init__(self, kind: type[nn.RNNBase], **more: Any):
        super().__init__()
        self.cells = kind(32, 64, batch_first=True, **more)
        self.head = nn.Linear(64 * (1 + self.cells.bidirectional), CLASSES)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Attending(nn.Module):
    """A sequence's class by attention over it."""

    def __init__(self, attention: nn.Module, batch_first: bool = True):
        super().__init__()
        self.attention, self.batch_first = attention, batch_first
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        if isinstance(self.attention, nn.MultiheadAttention):
            seen = self.attention(x, x, x, need_weights=False)[0]
        else:
            seen = self.attention(x)
        return self.head(seen.mean(1 if self.batch_first else 0))


def encoder(batch_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=batch_first)
    return Attending(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), batch_first)


class Bag(nn.Module):
    """A text's class from its words' mean."""

    def __init__(self, table: nn.Module):
        super().__init__()
        self.table, self.head = table, nn.Linear(64, CLASSES)

    def forward(self, ids):
        seen = self.table(ids)
        return self.head(seen if seen.ndim == 2 else seen.mean(1))


class Tied(nn.Module):
    """An autoencoder whose second half is its first, transposed."""

    def __init__(self):
        super().__init__()
        self.inner, self.bias = nn.Linear(24, 12), nn.Parameter(torch.zeros(24))
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        back = functional.linear(self.inner(x).tanh(), self.inner.weight.T, self.bias)
        return self.head(back.relu_())


class Raw(nn.Module):
    """Parameters that no layer holds."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(24) + 0.5), nn.Parameter(torch.zeros(24))
        self.weight, self.last = nn.Parameter(torch.randn(24, 24) / 5), nn.Linear(24, CLASSES)

    def forward(self, x):
        return self.last((x * self.scale + self.shift) @ self.weight)


def convolved(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))


def shaped(make: Callable[[], nn.Module], *shape: int) -> Callable[[], nn.Module]:
    """With every lazy layer's size known."""

    def run() -> nn.Module:
        model = make()
        model(torch.zeros(1, *shape))
        return model

    return run


def mlp() -> nn.Module:
    widths = [nn.Linear(875, 2048), nn.Linear(2048, 1048), nn.Linear(1048, 206)]
    return nn.Sequential(widths[0], nn.ReLU(True), widths[1], nn.ReLU(True), widths[2])


def conv1d() -> nn.Module:
    first, second = nn.Conv1d(4, 16, 5, padding=2), nn.Conv1d(16, 32, 5, stride=2, groups=2)
    return convolved(first, nn.ReLU(inplace=True), nn.GroupNorm(4, 16), second, nn.SiLU(True))


def conv3d() -> nn.Module:
    first, second = nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 8, 3, stride=2)
    return convolved(first, nn.InstanceNorm3d(8, affine=True), nn.ReLU(inplace=True), second)


def transposed() -> nn.Module:
    down, up = nn.Conv2d(1, 8, 3, stride=2), nn.ConvTranspose2d(8, 4, 3, stride=2)
    return convolved(down, nn.ReLU(inplace=True), up, nn.PReLU(4))
