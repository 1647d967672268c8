"""The four networks of MLPerf Tiny, with random weights: topologies, not trained models.

Operators and shapes are those of the reference models (Banbury et al., MLPerf Tiny Benchmark, 2021,
§4), batch norms folded into the layer before them. Where a stride of two meets an even size, they
pad one cell at the end (TensorFlow's SAME); with ``symmetric`` it is torch's ``padding=``, one at
both ends, which a .tflite can only say by an operator of its own, PAD.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

INPUT_RANGE = (-1.0, 1.0)


@dataclass(frozen=True)
class TinyNetwork:
    """``goal``: flash, RAM and instructions, ours as a part of TensorFlow Lite Micro's."""

    name: str
    input_shape: tuple[int, ...]
    logits: Callable[[bool], nn.Sequential]
    softmax: bool
    goal: tuple[float, float, float]

    def build(self, seed: int, softmax: bool, symmetric: bool = False) -> nn.Sequential:
        """The network in evaluation mode, ended by a softmax if it has one and that is wished."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self.logits(symmetric)
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if softmax and self.softmax:
            network.append(nn.Softmax(dim=-1))
        return network.eval()


class Residual(nn.Module):
    """ReLU(conv(ReLU(conv(x))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, symmetric: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(*_conv(inputs, outputs, stride, symmetric))
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def ds_cnn(symmetric: bool) -> nn.Sequential:
    """Keyword spotting: 49 × 10 MFCC, 12 classes, 23 k weights."""
    first = (
        (nn.Conv2d(1, 64, (10, 4), 2, padding=(5, 1)),)
        if symmetric
        else (nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, 64, (10, 4), 2))
    )
    blocks = [layer for _ in range(4) for layer in _separable(64, 64, 1, symmetric)]
    tail = (nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(64, 12))
    return nn.Sequential(*first, nn.ReLU(), *blocks, *tail)


def mobilenet(symmetric: bool) -> nn.Sequential:
    """Visual wake words: MobileNetV1 × 0.25 on 96 × 96 × 3, 2 classes, 213 k weights."""
    layers, channels = _conv(3, 8, 2, symmetric), 8
    for outputs, stride in (
        *((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
        *(((128, 1),) * 5),
        *((256, 2), (256, 1)),
    ):
        layers += _separable(channels, outputs, stride, symmetric)
        channels = outputs
    return nn.Sequential(*layers, nn.AvgPool2d(3), nn.Flatten(), nn.Linear(256, 2))


def resnet8(symmetric: bool) -> nn.Sequential:
    """Image classification: 32 × 32 × 3, 10 classes, 77 k weights."""
    return nn.Sequential(
        *_conv(3, 16, 1, symmetric),
        *(Residual(*each, symmetric) for each in ((16, 16, 1), (16, 32, 2), (32, 64, 2))),
        *(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)),
    )


def autoencoder(symmetric: bool) -> nn.Sequential:
    """Anomaly detection: 640 values and back, 264 k weights."""
    sizes = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _conv(
    inputs: int, outputs: int, stride: int, symmetric: bool, groups: int = 1
) -> list[nn.Module]:
    """3 × 3 and a ReLU."""
    ended = stride == 2 and not symmetric
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if ended else 1, groups=groups)
    return [*([nn.ZeroPad2d((0, 1, 0, 1))] if ended else []), conv, nn.ReLU()]


def _separable(inputs: int, outputs: int, stride: int, symmetric: bool) -> list[nn.Module]:
    depthwise = _conv(inputs, inputs, stride, symmetric, groups=inputs)
    return [*depthwise, nn.Conv2d(inputs, outputs, 1), nn.ReLU()]


NETWORKS = (
    TinyNetwork("kws", (1, 49, 10), ds_cnn, True, (0.55, 0.7, 0.7)),
    TinyNetwork("vww", (3, 96, 96), mobilenet, True, (0.85, 0.8, 0.75)),
    TinyNetwork("resnet", (3, 32, 32), resnet8, True, (0.65, 0.75, 0.7)),
    TinyNetwork("autoencoder", (640,), autoencoder, False, (0.85, 0.4, 0.8)),
)
