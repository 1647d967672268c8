"""Blocks of small convolutional networks without batch statistics, and their initial weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from dpsgd_torch.layers import WeightStandardizedConv2d, WeightStandardizedLinear

_CHANNELS_A_GROUP = 8
_GAIN_OF_RELU = (2 / (1 - 1 / math.pi)) ** 0.5
_STANDARDIZED = WeightStandardizedConv2d | WeightStandardizedLinear


def norm_of(kind: str, channels: int) -> list[nn.Module]:
    """What stands where batch normalisation would: group normalisation, or nothing.

    Groups of eight channels, with a scale and a shift a channel [Wu, He 2018, Eq. 1–7]. Weights
    that are standardized need nothing behind them.

    >>> norm_of("group", 16), norm_of("none", 16)
    ([GroupNorm(2, 16, eps=1e-05, affine=True...)], [])
    """
    groups = max(1, channels // _CHANNELS_A_GROUP)
    return [nn.GroupNorm(groups, channels)] if kind == "group" else []


def convolution(
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int],
    norm: str,
    *,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
) -> list[nn.Module]:
    """Padding as TensorFlow's "same" has it, convolution, norm, ReLU.

    Where an odd number of zeros is padded, the one more comes last, as on a board; torch's own
    padding would put it first. An exporter folds it into the convolution.

    Args:
        size: height and width of what comes in.
        channels: that come in and that go out.

    >>> from torch import nn
    >>> nn.Sequential(*convolution((49, 10), (1, 4), (10, 4), "none", stride=2))(
    ...     torch.zeros(1, 1, 49, 10)
    ... ).shape
    torch.Size([1, 4, 25, 5])
    """
    (top, bottom), (left, right) = (_same(*each, stride) for each in zip(size, kernel, strict=True))
    layers: list[nn.Module] = []
    if (top, left) != (bottom, right):
        layers, top, left = [nn.ZeroPad2d((left, right, top, bottom))], 0, 0
    kind = WeightStandardizedConv2d if norm == "standardized" else nn.Conv2d
    layers.append(kind(*channels, kernel, stride, padding=(top, left), groups=groups))
    return [*layers, *norm_of(norm, channels[1]), *([nn.ReLU()] if relu else [])]


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that ⌈size / stride⌉ places are left."""
    whole = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return whole // 2, whole - whole // 2


def separable(
    size: tuple[int, int], channels: tuple[int, int], norm: str, *, stride: int = 1
) -> list[nn.Module]:
    """Depthwise 3×3, then pointwise 1×1, each with its norm and ReLU [Howard et al. 2017, §3.1]."""
    least = channels[0]
    after = (-(-size[0] // stride), -(-size[1] // stride))
    return [
        *convolution(size, (least, least), (3, 3), norm, stride=stride, groups=least),
        *convolution(after, channels, (1, 1), norm),
    ]


def linear(inputs: int, outputs: int, norm: str) -> list[nn.Module]:
    """A linear layer and its norm."""
    kind = WeightStandardizedLinear if norm == "standardized" else nn.Linear
    return [kind(inputs, outputs), *norm_of(norm, outputs)]


def he_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """He-uniform weights by fan-in and zero biases, in place [He et al. 2015, Eq. 10].

    Of a depthwise convolution fan-in is one kernel, so that signals do not fade through many; nor
    do they where weights are standardized: their gains begin at √(2 / (1 − 1/π)), by which ReLU
    leaves variances as they were [Brock, De, Smith, Simonyan 2021, §3].
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | _STANDARDIZED):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, _STANDARDIZED) and module.gain is not None:
            nn.init.constant_(module.gain, _GAIN_OF_RELU)
    return model
