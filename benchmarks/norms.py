"""What does a norm cost on a microcontroller: GroupNorm, LayerNorm or standardized weights?

One residual network, 16×16×3 inputs, 16 channels, two blocks, 10 outputs, random weights, three
ways and without a norm; as whole images on an emulated Cortex-M4F (--board names another): flash,
RAM with the stack, and instructions an inference, which are counted and are no cycles. Each is
held against the integers in numpy, and standardized weights against TensorFlow Lite Micro too.

--train N: scikit-learn's digits (8×8, 1,400 to train, 397 to test) with each, N seeds, ε = 3 at
δ = 1e-4, 12 epochs of batches of 256, clip 1, SGD at 0.5 with momentum 0.9, tuned for none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer, WeightStandardizedConv2d
from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import Board, board
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.emulate import run_on
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_int8_tflite

SHAPE, CHANNELS, COUNT = (3, 16, 16), 16, 20

Convolution = Callable[[int], nn.Module]
Norm = Callable[[], nn.Module]


class Block(nn.Module):
    """x + two convolutions of it."""

    def __init__(self, conv: Convolution, norm: Norm) -> None:
        super().__init__()
        self.inner = nn.Sequential(conv(CHANNELS), norm(), nn.ReLU(), conv(CHANNELS), norm())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


def network(
    conv: Convolution, norm: Norm, channels: int = SHAPE[0], side: int = SHAPE[1], seed: int = 0
) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        conv(channels), norm(), nn.ReLU(), Block(conv, norm), Block(conv, norm),
        nn.AvgPool2d(side // 4), nn.Flatten(), nn.Linear(16 * CHANNELS, 10),
    )  # fmt: skip


def plain(channels: int) -> nn.Module:
    return nn.Conv2d(channels, CHANNELS, 3, padding=1)


def standardized(channels: int) -> nn.Module:
    return WeightStandardizedConv2d(channels, CHANNELS, 3, padding=1)


PARTS: dict[str, tuple[Convolution, Norm]] = {
    "no norm": (plain, nn.Identity),
    "standardized weights": (standardized, nn.Identity),
    "GroupNorm, 4 groups": (plain, lambda: nn.GroupNorm(4, CHANNELS)),
    "GroupNorm, 1 group": (plain, lambda: nn.GroupNorm(1, CHANNELS)),
    "LayerNorm of each picture": (plain, lambda: nn.LayerNorm((CHANNELS, *SHAPE[1:]))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--board", default="netduinoplus2")
    parser.add_argument("--train", type=int, default=0, metavar="SEEDS")
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
    else:
        cost(board(arguments.board))


def cost(chosen: Board) -> None:
    inputs = torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(0))
    print(f"{chosen}, {COUNT} inputs")
    print(f"{'':28} {'flash KB':>9} {'RAM KB':>8} {'k instructions':>15}  bytes that differ")
    for name, parts in PARTS.items():
        written = to_onnx(network(*parts).eval(), SHAPE, {})
        program = compile_model(written, input_range=(0, 1), public_inputs=inputs.numpy())
        given = program.quantize(to_channels_last(inputs.numpy()))
        norm = run(program, given)
        ran = run_on(chosen, to_c(program), given)
        found = f"{_differ(ran.outputs, norm)}, {_in_tensorflow(program, given, norm)}"
        print(
            f"{name:28} {ran.flash_bytes / 1000:9.2f} {ran.ram_bytes / 1000:8.2f} "
            f"{ran.instructions_per_inference / 1000:15.1f}  {found}"
        )


def train(seeds: int) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    kept, held = order[:1400], order[1400:]
    for name in list(PARTS)[:4]:
        found = []
        for seed in range(seeds):
            model = network(*PARTS[name], channels=1, side=8, seed=seed)
            Trainer(
                model, nn.CrossEntropyLoss(), (x[kept], y[kept]), batch_size=256, epochs=12,
                privacy=Privacy(epsilon=3, delta=1e-4, clip_norm=1.0), seed=seed,
                optimizer=lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
            ).fit()  # fmt: skip
            with torch.no_grad():
                right = model.eval()(x[held]).argmax(dim=1) == y[held]
            found.append(100 * float(right.float().mean()))
        print(
            f"{name:28} {np.median(found):.1f} % ({min(found):.1f}–{max(found):.1f}) of {seeds}",
            flush=True,
        )


def _differ(found: np.ndarray, norm: np.ndarray) -> int:
    return int((found.reshape(norm.shape) != norm).sum())


def _in_tensorflow(program: Program, given: np.ndarray, norm: np.ndarray) -> str:
    try:
        return (
            f"{_differ(interpret(to_int8_tflite(program), given), norm)} of TensorFlow Lite Micro"
        )
    except ExportError:
        return "no .tflite"


if __name__ == "__main__":
    main()
