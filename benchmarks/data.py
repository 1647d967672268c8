"""What does a step cost whose rows come from a Dataset, and how much memory does a large one take?

Steps: rows of 1×28×28 from a map-style Dataset by two workers, from one in this process, and from
tensors in memory; one model, batches of 256, one thread. The three train at once, in blocks of
steps that take turns; the first steps of a block, whose rows were loaded while others trained, are
not counted. A ratio is of two blocks of one round: goal 1.15 for two workers. What it takes to
decode a row is a matter of its format and told apart, for one PNG file of that size.

Memory: 3 GB of made-up images (20,000 of 3×224×224), by two workers, in a process of its own: the
pass over all rows before the first charge, and some steps. Told is the largest sum over the process
and its workers of what is theirs in memory (proportional set size, shared pages divided), and the
resident set of the process alone.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.data import FromDataset

ROWS, BATCH, WORKERS, IN_HAND = 6000, 256, 2, 5  # IN_HAND: pieces that workers have ready, and one
LARGE, PICTURE = 20_000, (3, 224, 224)
PRIVACY = Privacy(noise_multiplier=1.0, delta=1e-5, clip_norm=1.0)


class Rows(Dataset[Any]):
    """Rows of tensors, one at a time, each a copy as a decoder's would be."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.inputs[row].clone(), int(self.targets[row])


class Large(Dataset[Any]):
    """Images that lie nowhere: cut from noise at a place of their own."""

    def __init__(self, rows: int = LARGE) -> None:
        self.rows, self.size = rows, int(np.prod(PICTURE))
        noise = np.random.default_rng(0).integers(0, 256, 2 * self.size, np.uint8)
        self.noise = torch.from_numpy(noise)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        start = row * 7919 % self.size
        return self.noise[start : start + self.size].reshape(PICTURE), row % 10


class Scaled(nn.Module):
    """Bytes as numbers from 0 to 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() / 255


def small_model() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 8, 2, padding=3), nn.Tanh(), nn.MaxPool2d(2, 1)),
        *(nn.Conv2d(16, 32, 4, 2), nn.Tanh(), nn.MaxPool2d(2, 1)),
        *(nn.Flatten(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 10)),
    )


def large_model() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(392, 10))
    return nn.Sequential(Scaled(), *layers)


def trainer_on(model: nn.Module, data: Any, **settings: Any) -> Trainer:
    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        data,
        privacy=PRIVACY,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        seed=0,
        **settings,
    )


def ratios(rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each contender, one number a round."""
    torch.manual_seed(0)
    rows = torch.rand(ROWS, 1, 28, 28), torch.randint(10, (ROWS,))
    kinds = {
        "tensors": rows,
        f"{WORKERS} workers": FromDataset(Rows(*rows), workers=WORKERS),
        "no worker": FromDataset(Rows(*rows)),
    }
    needed = (1 + rounds) * (steps + IN_HAND) * BATCH / ROWS
    settings: dict[str, Any] = {
        "batch_size": BATCH, "epochs": 1 + needed, "physical_batch_size": BATCH
    }  # fmt: skip
    runs: dict[str, Iterator[Any]] = {
        name: trainer_on(small_model(), data, **settings).run() for name, data in kinds.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    names = list(kinds)
    for turn in range(1 + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            for _ in range(IN_HAND):
                next(runs[name])
            started = time.perf_counter()
            for _ in range(steps):
                next(runs[name])
            if turn:
                seconds[name].append((time.perf_counter() - started) / steps)
    for run in runs.values():
        run.close()  # type: ignore[attr-defined]
    return seconds


def decoding(times: int = 300) -> float:
    """Seconds to decode a PNG file of one row."""
    from PIL import Image

    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(values).save(file, "png")
    started = time.perf_counter()
    for _ in range(times):
        np.asarray(Image.open(io.BytesIO(file.getvalue())))
    return (time.perf_counter() - started) / times


class Watch(threading.Thread):
    """The largest sum of what this process and its children hold, looked at again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, sum(map(_held, [os.getpid(), *_children()])))

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.peak


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # the thread has ended
            continue
    return found


def _held(process: int) -> int:
    """Bytes, a page that several share counted in parts."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def _most_resident() -> int:
    """Bytes of this program at most; getrusage's figure begins with that of who started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def hold(rows: int, steps: int) -> None:
    """Train on so many large rows, and print what it took; in a process of its own."""
    (watch := Watch()).start()
    started = time.perf_counter()
    data = FromDataset(Large(rows), workers=WORKERS)
    trainer = trainer_on(
        large_model(), data, batch_size=64, epochs=steps * 64 / rows, physical_batch_size=32
    )
    trainer.open()
    passed = time.perf_counter() - started
    trainer.fit()
    told = {
        "bytes": rows * int(np.prod(PICTURE)),
        "steps": trainer.done,
        "peak": watch.stop(),
        "resident": _most_resident(),
        "pass": passed,
        "fit": time.perf_counter() - started - passed,
    }
    print(json.dumps(told))


def held(rows: int = LARGE, steps: int = 12) -> dict[str, Any]:
    """What ``hold`` prints."""
    command = [sys.executable, __file__, "--hold", str(rows), str(steps)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="after one to warm up (9)")
    parser.add_argument("--steps", type=int, default=15, help="of each block that are timed (15)")
    parser.add_argument("--hold", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    if options.hold:
        hold(*options.hold)
        return
    from step import conditions

    told = conditions(options)
    print(f"{told['machine']}; {told['versions']}; {options.rounds} rounds")
    seconds = ratios(options.rounds, options.steps)
    for name, each in seconds.items():
        low, middle, high = np.quantile(np.divide(each, seconds["tensors"]), [0.1, 0.5, 0.9])
        print(
            f"{name:10}{1000 * float(np.median(each)):8.2f} ms a step, "
            f"{middle:.2f} times tensors ({low:.2f} to {high:.2f})"
        )
    print(f"decoding a PNG file of a row, apart: {1e6 * decoding():.0f} µs")
    found = held()
    print(
        f"{found['bytes'] / 1e9:.2f} GB of images: at most {found['peak'] / 1e9:.2f} GB in memory "
        f"with {WORKERS} workers (resident, this process alone: {found['resident'] / 1e9:.2f} GB); "
        f"first pass {found['pass']:.0f} s, {found['steps']} steps {found['fit']:.1f} s"
    )


if __name__ == "__main__":
    main()
