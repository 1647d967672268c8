"""What each optimizer, filter, average and number of views gives at equal ε: docs/ablations.md.

Every row trains the same small CNN at ε = 3, δ = 1e-5, batch, passes, clip norm and noise alike.
Each row has its own learning rate: the best of `--rates` on held-out images by a run of its own
seed, which nobody paid for and the table does not count; the other images give the figures, of five
seeds of initial weights, sampling and noise. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from accountant import calibrate_noise, dpsgd_event, dpsgd_steps
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.data.views import Augment, Draws
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.optim import AdamBC
from dpsgd_torch.schedules import Linear
from dpsgd_torch.tasks.augment import shifted
from dpsgd_torch.tasks.digits.task import digits_cnn, digits_task
from dpsgd_torch.tasks.mnist.fetch import load_splits
from dpsgd_torch.tasks.mnist.task import mnist_cnn
from dpsgd_torch.tasks.task import Pair, accuracy
from dpsgd_torch.training.streams import Streams

EPSILON, DELTA = 3.0, 1e-5
Optimizer = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Training and test images, the first third of which choose the learning rate."""

    train: Pair
    test: Pair
    model: Callable[[torch.Generator], nn.Module]
    batch_size: int
    epochs: int
    pixels: int  # that a view is shifted by, at most

    @property
    def noise_multiplier(self) -> float:
        n = len(self.train[1])
        steps = dpsgd_steps(dataset_size=n, batch_size=self.batch_size, epochs=self.epochs)
        event = partial(dpsgd_event, dataset_size=n, batch_size=self.batch_size)
        found = calibrate_noise(EPSILON, DELTA, lambda z: [(event(noise_multiplier=z), steps)])
        return found


def digits() -> Problem:
    task = digits_task(0.0)
    assert task.test
    return Problem(
        train=task.train, test=task.test, model=digits_cnn, batch_size=128, epochs=20, pixels=1
    )


def made_up() -> Problem:
    """4,000 made-up digits of 8×8 pixels, and as many to look at."""
    images, classes = made_up_digits(8000, 8, seed=5)
    return Problem(
        train=(images[:4000], classes[:4000]),
        test=(images[4000:], classes[4000:]),
        model=digits_cnn,
        batch_size=256,
        epochs=10,
        pixels=1,
    )


def mnist(folder: Path | None) -> Problem:
    """The first 6,000 images of MNIST, and 3,000 of its test images."""
    pairs = [
        (each.data.unsqueeze(1).float() / 255, each.targets)
        for each in load_splits("mnist", folder)
    ]
    (images, classes), (others, theirs) = pairs
    return Problem(
        train=(images[:6000], classes[:6000]),
        test=(others[:3000], theirs[:3000]),
        model=mnist_cnn,
        batch_size=256,
        epochs=8,
        pixels=2,
    )


@dataclass(frozen=True)
class Row:
    """What differs from the first row, and what its learning rates are multiplied by."""

    optimizer: Optimizer = torch.optim.SGD
    given: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    views: int = 1
    shifts: bool | None = None  # whether views are moved; where there are several, if left out
    falling: bool = False


_MOMENTUM = partial(torch.optim.SGD, momentum=0.9)
ROWS = {
    "sgd": Row(),
    "sgd, rate falling to 0": Row(falling=True),
    "momentum 0.9": Row(_MOMENTUM, rate=0.1),
    "views 2": Row(views=2),
    "views 4": Row(views=4),
    "views 8": Row(views=8),
    "views 4, unmoved": Row(views=4, shifts=False),
    "one view, shifted": Row(shifts=True),
    "ema:0.9": Row(given={"average": "ema:0.9"}),
    "ema:0.98": Row(given={"average": "ema:0.98"}),
    "tail:0.5": Row(given={"average": "tail:0.5"}),
    "falling, ema:0.9": Row(given={"average": "ema:0.9"}, falling=True),
    "adam": Row(torch.optim.Adam, rate=0.005),
    "adam-bc 0.1": Row(partial(AdamBC, floor=0.1), rate=0.005),
    "adam-bc 0.01": Row(partial(AdamBC, floor=0.01), rate=0.005),
    "adam-bc 1": Row(partial(AdamBC, floor=1.0), rate=0.005),
    "adamw": Row(partial(torch.optim.AdamW, weight_decay=0.01), rate=0.005),
    "doppler:0.9": Row(given={"filter": "doppler:0.9"}),
    "doppler:0.5": Row(given={"filter": "doppler:0.5"}),
    "disk:0.7": Row(given={"filter": "disk:0.7"}),
    "disk:0.5": Row(given={"filter": "disk:0.5"}),
    "views 4, falling, ema:0.9": Row(given={"average": "ema:0.9"}, views=4, falling=True),
}


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    problems = {"digits": digits, "made-up": made_up, "mnist": partial(mnist, options.data_dir)}
    rows = {name: row for name, row in ROWS.items() if not options.only or name in options.only}
    found: dict[str, dict[str, Any]] = {}
    print(
        f"ε = {EPSILON:g}, δ = {DELTA:g}; {platform.processor() or platform.machine()}, "
        f"torch {torch.__version__}"
    )
    for task in options.tasks:
        problem = problems[task]()
        noise = problem.noise_multiplier
        print(f"\n{task}: n = {len(problem.train[1])}, batch {problem.batch_size}, "
              f"{problem.epochs} passes, noise {noise:.4f}")  # fmt: skip
        print("| | accuracy, median (least–most) | learning rate | seconds a run |", flush=True)
        print("|---|---|---|---|", flush=True)
        for name, row in rows.items():
            told = found.setdefault(task, {})[name] = measured(problem, row, noise, options)
            print(line(name, told), flush=True)
    if options.json:
        print(json.dumps(found, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tasks", nargs="+", choices=("digits", "made-up", "mnist"), default=["digits", "made-up"])
    add("--only", nargs="+", choices=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    add("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="times the row's own")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    add("--data-dir", type=Path, help="where MNIST lies")
    add("--quick", action="store_true", help="one seed, one learning rate")
    add("--json", action="store_true", help="every run, too")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.rates = options.seeds[:1], [1.0]
    return options


def measured(
    problem: Problem, row: Row, noise: float, options: argparse.Namespace
) -> dict[str, Any]:
    """The learning rate that was chosen, and each seed's accuracy with it."""
    third = len(problem.test[1]) // 3
    looked_at, kept = (
        tuple(part[s] for part in problem.test) for s in (slice(third), slice(third, None))
    )
    rates = [row.rate * each for each in options.rates]
    tried = {rate: trained(problem, row, noise, rate, 99, looked_at)[0] for rate in rates}
    rate = max(tried, key=tried.__getitem__) if len(rates) > 1 else rates[0]
    runs = [trained(problem, row, noise, rate, seed, kept) for seed in options.seeds]
    return {"rate": rate, "accuracy": [a for a, _ in runs], "seconds": [s for _, s in runs]}


def trained(
    problem: Problem, row: Row, noise: float, rate: float, seed: int, scored: tuple[Any, ...]
) -> tuple[float, float]:
    """Accuracy of what is left in the model, and processor seconds."""
    began = time.process_time()
    n = len(problem.train[1])
    steps = dpsgd_steps(dataset_size=n, batch_size=problem.batch_size, epochs=problem.epochs)
    trainer = Trainer(
        problem.model(Streams(seed).torch("init")),
        nn.CrossEntropyLoss(),
        problem.train,
        privacy=Privacy(noise_multiplier=noise, delta=DELTA, clip_norm=1.0),
        batch_size=problem.batch_size,
        epochs=problem.epochs,
        optimizer=lambda parameters: row.optimizer(parameters, lr=rate),
        rate_schedule=Linear(1.0, 0.0, steps) if row.falling else None,
        seed=seed,
        views=row.views,
        augment=augment_of(row, problem.pixels),
        **row.given,
    )
    trainer.fit()
    inputs, targets = scored
    with torch.no_grad():
        right = accuracy(trainer.model.eval()(inputs), targets)
    return 100 * float(right.mean()), time.process_time() - began


def augment_of(row: Row, pixels: int) -> Augment | None:
    if row.shifts or (row.shifts is None and row.views > 1):
        return shifted(pixels)
    return None if row.views == 1 else unmoved


def unmoved(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The image itself, by which several views must train as one does."""
    del draws
    return images


def line(name: str, told: Mapping[str, Any]) -> str:
    found = told["accuracy"]
    spread = f" ({min(found):.1f}–{max(found):.1f})" if len(found) > 1 else ""
    seconds = median(told["seconds"])
    return f"| {name} | {median(found):.1f}{spread} | {told['rate']:g} | {seconds:.1f} |"


if __name__ == "__main__":
    main()
