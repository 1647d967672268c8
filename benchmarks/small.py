"""What does a step of the README's first example cost, with all that a private run does?

1000 made-up rows, 20 inputs, two linear layers, batches of 64, in memory, one thread. A round runs
each contender over as many epochs, in an order that rotates; ratios are taken within a round.

    plain    the same loop without privacy: a batch, zero_grad, forward, backward, step
    ours     Trainer.run: charge, sampling, clip, noise, every check, ε at each epoch's end
    opacus   PrivacyEngine.make_private and its loop: sampling, clip, noise; ε at each epoch's end

Seconds are the processor's: on one thread those of the clock, and other programs do not count.
Building a contender is not timed; that of ours is told beside it, since its rehearsal is in it.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from opacus import PrivacyEngine
from step import conditions
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpsgd_torch import Privacy, Trainer

ROWS, BATCH, DELTA, NOISE_MULTIPLIER, CLIP_NORM, RATE = 1000, 64, 1e-5, 1.0, 1.0, 0.5

Run = Callable[[], int]  # to the end; how many steps it took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="after one to warm up (10)")
    parser.add_argument("--epochs", type=int, default=10, help="of each run (10)")
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # what Opacus warns of is not ours to print
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    building: list[float] = []
    names = list(CONTENDERS)
    for turn in range(1 + options.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.process_time()
            run = CONTENDERS[name](options.epochs)
            built = time.process_time()
            steps = run()
            if turn:
                seconds[name].append((time.process_time() - built) / steps)
                building += [built - started] if name == "ours" else []
    told = conditions(options)
    print(f"{told['machine']}; {told['versions']}; {options.rounds} rounds")
    for name in names:
        ratios = np.quantile(np.divide(seconds[name], seconds["plain"]), [0.5, 0.1, 0.9])
        print(
            f"{name:7}{1000 * float(np.median(seconds[name])):7.2f} ms a step, "
            "{:.1f} times plain ({:.1f} to {:.1f})".format(*ratios)
        )
    print(f"building ours: {float(np.median(building)):.2f} s")


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(ROWS, 20), torch.randint(3, (ROWS,))


def plain(epochs: int) -> Run:
    net, loss, (inputs, targets) = model(), nn.CrossEntropyLoss(), rows()
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)

    def run() -> int:
        steps = 0
        for _ in range(epochs):
            for batch in torch.randperm(ROWS).split(BATCH):
                optimizer.zero_grad()
                loss(net(inputs[batch]), targets[batch]).backward()
                optimizer.step()
                steps += 1
        return steps

    return run


def ours(epochs: int) -> Run:
    trainer = Trainer(
        model(),
        nn.CrossEntropyLoss(),
        rows(),
        privacy=Privacy(noise_multiplier=NOISE_MULTIPLIER, delta=DELTA, clip_norm=CLIP_NORM),
        batch_size=BATCH,
        epochs=epochs,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
    )
    return lambda: sum(1 for _ in trainer.run())


def opacus(epochs: int) -> Run:
    net, loss, engine = model(), nn.CrossEntropyLoss(), PrivacyEngine(accountant="prv")
    net, optimizer, loader = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=RATE),
        data_loader=DataLoader(TensorDataset(*rows()), batch_size=BATCH),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIP_NORM,
    )

    def run() -> int:
        steps = 0
        for _ in range(epochs):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss(net(inputs), targets).backward()
                optimizer.step()
                steps += 1
            engine.get_epsilon(DELTA)
        return steps

    return run


CONTENDERS: dict[str, Callable[[int], Run]] = {"plain": plain, "ours": ours, "opacus": opacus}


if __name__ == "__main__":
    main()
