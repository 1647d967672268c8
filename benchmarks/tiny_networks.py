"""The four networks of MLPerf Tiny as `dpsgd_torch.tasks` builds them, with random weights.

Operators and shapes are those of the reference models (Banbury et al., MLPerf Tiny Benchmark, 2021,
§4), batch norms left out or replaced. Where a stride of two meets an even size, they pad one cell
at the end (TensorFlow's SAME); made ``symmetric`` it is torch's ``padding=``, one at both ends,
which a .tflite can only say by an operator of its own, PAD.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from dpsgd_torch.tasks.registry import TASKS

INPUT_RANGE = (-1.0, 1.0)

SHAPES = {
    "speech": ((1, 49, 10), 12),
    "wake-words": ((3, 96, 96), 2),
    "cifar": ((3, 32, 32), 10),
    "machines": ((640,), 640),
}
"""Task → shape of an input, outputs."""


def network_of(task: str, norm: str = "none", seed: int = 0) -> nn.Module:
    """A task's network in evaluation mode, its weights drawn, biases and scales moved a little."""
    kind, (_, outputs) = TASKS[task], SHAPES[task]
    knobs = cast(Any, kind.knobs)(norm=norm)
    model = kind.architecture(knobs, tuple(map(str, range(outputs)))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@dataclass(frozen=True)
class TinyNetwork:
    """``goal``: flash, RAM and instructions, ours as a part of TensorFlow Lite Micro's."""

    name: str
    task: str
    softmax: bool
    goal: tuple[float, float, float]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example."""
        return SHAPES[self.task][0]

    def build(self, seed: int, softmax: bool, symmetric: bool = False) -> nn.Module:
        """The network in evaluation mode, ended by a softmax if it has one and that is wished."""
        network = network_of(self.task, seed=seed)
        if symmetric:
            _pad_both_ends(network)
        if softmax and self.softmax:
            return nn.Sequential(network, nn.Softmax(dim=-1)).eval()
        return network


def _pad_both_ends(network: nn.Module) -> None:
    """The larger side of each layer that pads, by the convolution after it, at both of its ends."""
    for block in network.modules():
        layers = list(block.named_children()) if isinstance(block, nn.Sequential) else []
        for (name, pad), (_, conv) in itertools.pairwise(layers):
            if isinstance(pad, nn.ZeroPad2d) and isinstance(conv, nn.Conv2d):
                left, right, top, bottom = cast("tuple[int, int, int, int]", pad.padding)
                conv.padding = (max(top, bottom), max(left, right))
                setattr(block, name, nn.Identity())


NETWORKS = (
    TinyNetwork("kws", "speech", True, (0.55, 0.7, 0.7)),
    TinyNetwork("vww", "wake-words", True, (0.85, 0.8, 0.75)),
    TinyNetwork("resnet", "cifar", True, (0.65, 0.75, 0.7)),
    TinyNetwork("autoencoder", "machines", False, (0.85, 0.4, 0.8)),
)
