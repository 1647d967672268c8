"""What do several processes gain, and what does privacy cost beside PyTorch's own DDP?

One launch starts the processes, each on a core of its own with one thread. A round times four
things in turn, in an order that rotates, between barriers: what slows the machine slows all alike.

    plain, one process      zero_grad, forward, backward, step over the whole batch; others wait
    private, one process    the Trainer's step over the whole Poisson batch, in memory
    plain, all              the same under DistributedDataParallel, each rank its part of the batch
    private, all            the Trainer's step over all ranks: one batch, one noise, one ledger

The first ratio is how much faster all are than one, private, over the same of plain; the second
what a private step takes beside a plain one, over all and in one process. Goals: ≥ 0.97, and at
most 1.03 times as much over all as in one. Both are told twice: by the clock, and by the time for
which the busiest rank's processor worked, which leaves waiting out and is steadier on a machine
where others work too. ``--where`` also tells where a step's time goes on rank 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
import torch.distributed as dist
from model_zoo import made
from step import conditions
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.noise.blocks import BLOCKS, BlockGaussian
from dpsgd_torch.noise.independent import INDEPENDENT, IndependentGaussian
from dpsgd_torch.training.world import ALONE, World

MODELS = {"mnist_cnn": 1024, "hf_llama": 64}  # batch
NOISES = {"numpy": INDEPENDENT, "blocks": BLOCKS}
WARM_UP = 2
RATE = 1e-3
CALLS = ("all_gather", "all_to_all_single", "gather", "broadcast", "all_gather_into_tensor")

Step = Callable[[], object]


def main() -> None:
    options = parse()
    if "RANK" not in os.environ:
        sys.exit(launch(options))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what libraries warn of is not ours to print
    world = World.of_environment(600)
    for name, batch in MODELS.items():
        if name in options.models:
            found = timed(name, options.batch or batch, world, options)
            if world.is_first:
                print(json.dumps(found) if options.json else told(found), flush=True)
    dist.destroy_process_group()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--processes", type=int, default=2, help="on this machine (2)")
    add("--models", nargs="+", default=list(MODELS), choices=MODELS, help="(all)")
    add("--batch", type=int, help="of all ranks together (1024 images, 64 texts)")
    add("--rounds", type=int, default=15, help="timed rounds, after two to warm up (15)")
    add("--steps", type=int, default=4, help="steps timed at once (4)")
    add(
        "--noise", default="blocks", choices=NOISES, help="what draws it, in one as in all (blocks)"
    )
    add("--where", action="store_true", help="also where a step's time goes on rank 0")
    add("--json", action="store_true", help="a JSON object a model instead of words")
    options = parser.parse_args()
    options.threads = 1
    return options


def launch(options: argparse.Namespace) -> int:
    """Start the processes; the first exit status that is not 0."""
    print("machine: {machine}, {versions}".format(**conditions(options)), flush=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(options.processes), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(options.processes)
    ]
    return max(abs(process.wait()) for process in started)


def timed(name: str, batch: int, world: World, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step of each contender, and the two ratios, round by round."""
    blocks = WARM_UP + options.rounds + 1
    with contextlib.ExitStack() as stack:
        contenders = {
            "plain, one": plain(name, batch) if world.is_first else None,
            "private, one": private(
                name, batch, ALONE, blocks * options.steps, stack, options.noise
            )
            if world.is_first
            else None,
            "plain, all": plain(name, batch, world),
            "private, all": private(
                name, batch, world, blocks * options.steps, stack, options.noise
            ),
        }
        seconds: dict[str, list[float]] = {each: [] for each in contenders}
        busy: dict[str, list[float]] = {each: [] for each in contenders}
        names, where = list(contenders), Where()
        for turn in range(WARM_UP + options.rounds):
            first = turn % len(names)
            for each in names[first:] + names[:first]:
                step = contenders[each]
                dist.barrier()
                started, worked = time.perf_counter(), time.process_time()
                watching = options.where and each == "private, all" and turn >= WARM_UP
                with where.watching() if watching else contextlib.nullcontext():
                    for _ in range(options.steps):
                        step and step()
                mine = time.perf_counter() - started
                most = torch.tensor([time.process_time() - worked])
                dist.all_reduce(most, dist.ReduceOp.MAX)
                seconds[each].append(mine / options.steps)
                busy[each].append(float(most) / options.steps)
    found = {"by the clock": ratios(seconds), "of the busiest processor": ratios(busy)}
    about = {"model": name, "batch": batch, "processes": world.size}
    return {**about, **found, **where.told(options.steps)}


def ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    all_of = {name: np.array(each[WARM_UP:]) for name, each in seconds.items()}
    gains = (all_of[f"{kind}, one"] / all_of[f"{kind}, all"] for kind in ("plain", "private"))
    plain, private = gains
    one, several = (all_of[f"private, {n}"] / all_of[f"plain, {n}"] for n in ("one", "all"))
    each = {
        "plain: all ÷ one": plain,
        "private: all ÷ one": private,
        "private gains ÷ plain gains (goal ≥ 0.97)": private / plain,
        "private ÷ plain step, one process": one,
        "private ÷ plain step, all": several,
        "all ÷ one process (goal ≤ 1.03)": several / one,
    }
    return {
        "milliseconds": {name: 1000 * float(np.median(s)) for name, s in all_of.items()},
        "ratio": {name: np.quantile(r, [0.5, 0.1, 0.9]).tolist() for name, r in each.items()},
    }


def plain(name: str, batch: int, world: World | None = None) -> Step:
    """A step without privacy of this rank's part; under DDP where there is a world."""
    size, rank = (world.size, world.rank) if world else (1, 0)
    model, inputs, targets, loss = made(name, batch)
    of_rank = slice(rank * batch // size, (rank + 1) * batch // size)
    inputs, targets = part(inputs, of_rank), targets[of_rank]
    wrapped = nn.parallel.DistributedDataParallel(model) if world else model
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=RATE), per_example(loss)

    def step() -> None:
        optimizer.zero_grad()
        outputs = wrapped(**inputs) if isinstance(inputs, dict) else wrapped(inputs)
        loss(outputs, targets).mean().backward()
        optimizer.step()

    return step


def private(
    name: str, batch: int, world: World, steps: int, stack: contextlib.ExitStack, noise: str
) -> Step:
    """A step of the Trainer, over this world's ranks."""
    rows = 8 * batch
    model, inputs, targets, loss = made(name, rows)
    trainer = Trainer(
        model,
        loss,
        (inputs, targets),
        privacy=Privacy(noise_multiplier=1.0, delta=1e-5, clip_norm=1.0, noise=NOISES[noise]),
        batch_size=batch,
        epochs=steps * batch / rows,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        physical_batch_size=2 * batch if name == "hf_llama" else "auto",  # Poisson: room
        checkpoint_every=10**6,
        seed=0,
        world=world,
    )
    going: Iterator[Any] = stack.enter_context(contextlib.closing(trainer.run()))
    return lambda: next(going)


def part(inputs: Any, rows: slice) -> Any:
    if isinstance(inputs, dict):
        return {name: each[rows] for name, each in inputs.items()}
    return inputs[rows]


class Where:
    """Seconds that this rank spends in what it exchanges, by collective, and in drawing noise."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.blocks = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.blocks += 1
        places: list[tuple[Any, str]] = [(dist, call) for call in CALLS]
        places += [(IndependentGaussian, "add"), (BlockGaussian, "released")]
        before = [getattr(where, name) for where, name in places]
        for (where, name), function in zip(places, before, strict=True):
            setattr(where, name, self._timing(name, function))
        try:
            yield
        finally:
            for (where, name), function in zip(places, before, strict=True):
                setattr(where, name, function)

    def _timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - started
                self.calls[name] = self.calls.get(name, 0) + 1

        return timing

    def told(self, steps: int) -> dict[str, Any]:
        if not self.blocks:
            return {}
        steps *= self.blocks
        each = {n: [1000 * s / steps, self.calls[n] / steps] for n, s in self.seconds.items()}
        return {"where, ms and calls a step": each}


def told(found: dict[str, Any]) -> str:
    lines = ["{model}, batch {batch}, {processes} processes".format(**found)]
    for how in ("by the clock", "of the busiest processor"):
        each = ", ".join(f"{n} {ms:.1f} ms" for n, ms in found[how]["milliseconds"].items())
        lines.append(f"  {how}: {each}")
        for name, (middle, low, high) in found[how]["ratio"].items():
            lines.append(f"    {name:44}{middle:6.3f}  ({low:.3f} to {high:.3f})")
    for name, (ms, calls) in found.get("where, ms and calls a step", {}).items():
        lines.append(f"  {name:44}{ms:6.2f} ms in {calls:.1f} calls")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
