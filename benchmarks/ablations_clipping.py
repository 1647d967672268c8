"""What each kind of clipping gave at equal ε, over seeds: the rows of docs/clipping.md.

Two tasks, at ε = 3 and δ = 1e-4: scikit-learn's digits (64 values, a linear head), and made-up
digits of 14 × 14 with a small CNN. Learning rates are tried with the first seed alone, from one
grid for all kinds; then come the seeds, which vary sampling and noise. Printed: median test
accuracy, its lowest and highest, and the rate. The rate is chosen on the test set, which is
public here: rows compare kinds, and are no accuracy that ε covers.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.features.made_up.digits import made_up_digits

RATES = (0.25, 1.0, 4.0, 16.0, 64.0)
EPSILON, DELTA = 3.0, 1e-4
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """What is trained on what; ``steps`` are those of ``epochs``."""

    train: Pair
    test: Pair
    model: Callable[[], nn.Module]
    batch_size: int
    epochs: float


def digits_head(*, quick: bool) -> Task:
    """scikit-learn's digits, a linear head."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    inputs = torch.tensor(loaded.data, dtype=torch.float32) / 16
    targets = torch.tensor(loaded.target)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs, targets = inputs[order], targets[order]

    def head() -> nn.Module:
        model = nn.Linear(64, 10)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    train, test = (inputs[:1437], targets[:1437]), (inputs[1437:], targets[1437:])
    return Task(train, test, head, 256, 2 if quick else 15)


def made_up_cnn(*, quick: bool) -> Task:
    """Made-up digits of 14 × 14, a CNN of three layers."""
    images, targets = made_up_digits(3000 if not quick else 600, side=14, seed=1)
    images = images.reshape(-1, 1, 14, 14).float()
    cut = len(images) * 2 // 3

    def cnn() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Conv2d(1, 8, 3, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 3), nn.Tanh(),
                nn.Flatten(), nn.Linear(256, 10),
            )  # fmt: skip

    train, test = (images[:cut], targets[:cut]), (images[cut:], targets[cut:])
    return Task(train, test, cnn, 200, 1 if quick else 8)


TASKS = {"digits head": digits_head, "made-up CNN": made_up_cnn}


def flat() -> list[tuple[str, float]]:
    """Flat clipping, at three clip norms."""
    return [("flat", 0.1), ("flat", 1.0), ("flat", 10.0)]


def automatic() -> list[tuple[str, float]]:
    """AUTO-S, whose clip norm is a part of the learning rate."""
    return [("automatic:0.01", 1.0), ("automatic:1", 1.0)]


def adaptive() -> list[tuple[str, float]]:
    """By the median norm, from a clip norm ten times too small and too large."""
    return [("adaptive:0.5:0.2", 0.1), ("adaptive:0.5:0.2", 10.0)]


def per_group() -> list[tuple[str, float]]:
    """A layer apart, equal shares and by size."""
    return [("per-layer", 1.0), ("per-layer:size", 1.0)]


def accuracy(task: Task, clipping: str, clip_norm: float, rate: float, seed: int) -> float:
    """Of the test set, in percent, after one private run."""
    model = task.model()
    privacy = Privacy(epsilon=EPSILON, delta=DELTA, clip_norm=clip_norm, clipping=clipping)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), task.train, privacy=privacy, batch_size=task.batch_size,
        epochs=task.epochs, optimizer=lambda p: torch.optim.SGD(p, lr=rate), seed=seed,
    )  # fmt: skip
    trainer.fit()
    with torch.no_grad():
        right = model.eval()(task.test[0]).argmax(1) == task.test[1]
    return 100 * float(right.double().mean())


def row(
    task: Task, clipping: str, clip_norm: float, seeds: list[int], rates: tuple[float, ...]
) -> str:
    tried = {rate: accuracy(task, clipping, clip_norm, rate, seeds[0]) for rate in rates}
    rate = max(tried, key=lambda each: tried[each])
    found = [tried[rate], *(accuracy(task, clipping, clip_norm, rate, s) for s in seeds[1:])]
    return f"{median(found):.1f} ({min(found):.1f} to {max(found):.1f}) | {rate:g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS], metavar="TASK")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="S")
    add("--rates", type=float, nargs="+", default=RATES, metavar="RATE", help="learning rates")
    add("--quick", action="store_true", help="short runs of two seeds, to see that all go")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="local, not covered by ε")
    torch.set_num_threads(1)
    seeds, started = options.seeds[:2] if options.quick else options.seeds, time.monotonic()
    print("| task | clipping | first clip norm | accuracy, % | learning rate |")
    print("|---|---|---:|---:|---:|")
    for name in options.tasks:
        task = TASKS[name](quick=options.quick)
        for kind in (flat, automatic, adaptive, per_group):
            for clipping, clip_norm in kind():
                if kind is per_group and len([*task.model().modules()]) == 1:
                    continue  # one layer: flat
                told = row(task, clipping, clip_norm, seeds, tuple(options.rates))
                print(f"| {name} | `{clipping}` | {clip_norm:g} | {told} |", flush=True)
    seconds = time.monotonic() - started
    print(f"\nε = {EPSILON:g}, δ = {DELTA:g}, seeds {seeds}, {platform.machine()}, one thread, "
          f"torch {torch.__version__}, {seconds:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
