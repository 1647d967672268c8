"""Which layers have per-example gradients in closed form, what do they cost, and are they right?

One row a layer or way of use: how each of its parameters is held, the time of a private pass
(forward, backward, norms, clipped sum) ÷ a plain one, bytes held for the clip ÷ those of every
example's gradient written out, and the distance of the clipped sum from autograd's in float64, one
example at a time. Ratios are taken within a round, forms in turn; the middle one is shown.

    factors     never written out: norm by Gram matrices, sum by one product
    words       rows of a table that were looked up, and no table an example
    written     written out, being few values (or fewer than what would be kept)
    one by one  the operation's own backward, once an example: exact, slow, for what has no rule
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import torch
from gradient_oracle import error_of_the_clipped_sum
from step import conditions
from torch import nn
from torch.nn import functional

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.graph.rules.base import rule_for
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.parts import Part, Written

CLASSES = 10
LOSS = per_example(nn.CrossEntropyLoss())


class Layer(nn.Module):
    """One layer, and the mean over what it gives to an example, without a head of its own."""

    def __init__(self, layer: nn.Module, use: Callable[[nn.Module, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.layer, self.use = layer, use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self.layer, x).flatten(1)[:, :CLASSES]


class Doubled(torch.autograd.Function):
    """A custom function that has no rule."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return 2 * x * weight

    @staticmethod
    def backward(ctx, back):
        x, weight = ctx.saved_tensors
        return 2 * back * weight, (2 * back * x).sum(0)


class Raw(nn.Module):
    """A raw parameter."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape))


def plain(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer(x)


def rows() -> dict[str, tuple[Callable[[], nn.Module], torch.Tensor, Callable]]:
    """Name → the layer, its inputs, how it is used."""
    vector, sequence = torch.randn(512, 256), torch.randn(64, 32, 64)
    image, words = torch.randn(64, 16, 16, 16), torch.randint(20_000, (64, 32))
    return {
        "Linear": (lambda: nn.Linear(256, 256), vector, plain),
        "Linear, in place after": (
            lambda: nn.Linear(256, 256),
            vector,
            lambda m, x: m(x).mul_(2).relu_(),
        ),
        "Linear on a sequence": (lambda: nn.Linear(64, 64), sequence, plain),
        "Linear, sequence first": (
            lambda: nn.Linear(64, 64),
            sequence,
            lambda m, x: m(x.transpose(0, 1)).transpose(0, 1),
        ),
        "Linear twice": (lambda: nn.Linear(256, 256), vector, lambda m, x: m(m(x).tanh())),
        "Linear and F.linear": (
            lambda: nn.Linear(256, 256),
            vector,
            lambda m, x: m(x) + functional.linear(x.tanh(), m.weight),
        ),
        "weight_norm(Linear)": (
            lambda: nn.utils.parametrizations.weight_norm(nn.Linear(256, 256)),
            vector,
            plain,
        ),
        "Bilinear": (lambda: nn.Bilinear(16, 16, 16), vector, lambda m, x: m(x[:, :16], x[:, :16])),
        "Conv1d": (lambda: nn.Conv1d(32, 32, 3), sequence, plain),
        "Conv2d": (lambda: nn.Conv2d(16, 32, 3, padding=1), image, plain),
        "Conv2d, circular": (
            lambda: nn.Conv2d(16, 32, 3, padding=1, padding_mode="circular"),
            image,
            plain,
        ),
        "Conv2d, channels last": (
            lambda: nn.Conv2d(16, 32, 3, padding=1),
            image.to(memory_format=torch.channels_last),
            plain,
        ),
        "Conv2d, depthwise": (lambda: nn.Conv2d(16, 16, 3, groups=16), image, plain),
        "Conv3d": (
            lambda: nn.Conv3d(4, 8, 3),
            image,
            lambda m, x: m(x.view(len(x), 4, 4, 16, 16)),
        ),
        "ConvTranspose2d": (lambda: nn.ConvTranspose2d(16, 8, 3, stride=2), image, plain),
        "LayerNorm": (lambda: nn.LayerNorm(64), sequence, plain),
        "RMSNorm": (lambda: nn.RMSNorm(64), sequence, plain),
        "GroupNorm": (lambda: nn.GroupNorm(4, 16), image, plain),
        "InstanceNorm2d": (lambda: nn.InstanceNorm2d(16, affine=True), image, plain),
        "BatchNorm2d in eval mode": (lambda: nn.BatchNorm2d(16).eval(), image, plain),
        "PReLU": (lambda: nn.PReLU(16), image, plain),
        "Embedding": (lambda: nn.Embedding(20_000, 32), words, plain),
        "EmbeddingBag": (lambda: nn.EmbeddingBag(20_000, 32), words, plain),
        "MultiheadAttention": (
            lambda: nn.MultiheadAttention(64, 4, batch_first=True),
            sequence,
            lambda m, x: m(x, x, x)[0],
        ),
        "TransformerEncoderLayer": (
            lambda: nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True),
            sequence,
            plain,
        ),
        "LSTM": (lambda: nn.LSTM(64, 64, batch_first=True), sequence, lambda m, x: m(x)[0][:, -1]),
        "GRU": (lambda: nn.GRU(64, 64, batch_first=True), sequence, lambda m, x: m(x)[0][:, -1]),
        "raw parameter, added": (lambda: Raw(32, 64), sequence, lambda m, x: (x + m.weight).tanh()),
        "raw parameter, multiplied": (lambda: Raw(64), sequence, lambda m, x: x * m.weight),
        "einsum with a parameter": (
            lambda: Raw(64, 4, 16),
            sequence,
            lambda m, x: torch.einsum("btd,dhk->bthk", x, m.weight),
        ),
        "custom autograd.Function": (
            lambda: Raw(256),
            vector,
            lambda m, x: Doubled.apply(x, m.weight),
        ),
        "grid_sample of a parameter": (
            lambda: Raw(1, 4, 8, 8),
            vector,
            lambda m, x: functional.grid_sample(
                m.weight.expand(len(x), -1, -1, -1),
                x.view(len(x), 8, 16, 2).tanh(),
                align_corners=False,
            ),
        ),
        "BatchNorm2d": (lambda: nn.BatchNorm2d(16), image, plain),
        "Embedding, scale_grad_by_freq": (
            lambda: nn.Embedding(20_000, 32, scale_grad_by_freq=True),
            words,
            plain,
        ),
    }


def measured(name: str, rounds: int) -> tuple[str, ...]:
    make, x, use = rows()[name]
    torch.manual_seed(0)
    model = Layer(make(), use)
    model.train(model.layer.training)
    targets = torch.randint(CLASSES, (len(x),))
    params = list(model.parameters())
    twin = copy.deepcopy(model)  # recurrent layers lose their fused kernels to the engine
    engine = GraphGradients(model)
    try:
        engine.backward(LOSS, x, targets)
    except ModelError as refusal:
        return name, "refused", "", "", str(refusal)
    parts = engine._parts
    kinds = sorted({_kind(part) for part in parts.values()})
    if any(_alone(key) and any(found) for key, found in engine.layouts.of.items()):
        kinds = ["one by one"]
    held = sum(part.nbytes() for part in parts.values())
    every = len(x) * sum(p.numel() * p.element_size() for p in params)
    ratios = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        torch.autograd.grad(LOSS(twin(x), targets).sum(), list(twin.parameters()))
        between = time.perf_counter()
        engine.backward(LOSS, x, targets)
        vectors = engine.vectors(params)
        sums = [p.new_zeros(p.shape, dtype=torch.float64) for p in params]
        vectors.add_to(sums, (1 / vectors.norms).clamp(max=1.0), 2.0**-11)
        ratios.append((time.perf_counter() - between) / (between - begun))
    wide = x.double() if x.is_floating_point() else x
    error = error_of_the_clipped_sum(model.double(), (wide, targets), "graph")
    middle = statistics.median(ratios[1:])
    return name, ", ".join(kinds), f"{middle:.2g}", f"{held / every:.2g}", f"{error:.0e}"


def _kind(part: Part) -> str:
    if isinstance(part, Written):
        return "written"
    return "words" if type(part).__name__ in ("Tokens", "Joint") else "factors"


def _alone(key: tuple) -> bool:
    return rule_for(key[1]) is None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="of each layer (15)")
    parser.add_argument("--layers", help="names with commas between; all by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    told = conditions(argparse.Namespace(threads=1, rounds=given.rounds))
    print(", ".join(f"{name} {value}" for name, value in told.items()), end="\n\n")
    print("| layer | held as | time ÷ plain | bytes ÷ all gradients | error of the sum |")
    print("|---|---|---|---|---|")
    for name in given.layers.split(",") if given.layers else rows():
        print("| " + " | ".join(measured(name, given.rounds)) + " |", flush=True)


if __name__ == "__main__":
    main()
