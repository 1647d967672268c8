"""What does one private step cost, beside a plain step and beside Opacus's own loop?

The MNIST presets' CNN, synthetic images, one process. Each round times one step of each contender,
in an order that rotates, and ratios are taken within a round: what slows the machine for a while
slows all three alike.

    plain    full-batch step without privacy: zero_grad, forward, backward, step
    ours     what the Trainer runs: per-example gradients in physical batches, clip, fresh noise
             from its own stream, and the checks of every release
    opacus   Opacus's hooks as its user writes them: GradSampleModule and DPOptimizer

With --memory, also the peak memory (ru_maxrss) of one step of ours and of Opacus's at a virtual
batch of 512 and of 8192, each in a process of its own that holds the same images. Claim: ours grows
to at most 1.5 times. Opacus's, without its BatchMemoryManager, needs about 2 GiB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.privacy.plan import StepPlan
from dpsgd_torch.tasks.mnist.task import mnist_cnn
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep
from dpsgd_torch.training.streams import Streams

RATIOS = (("ours", "plain"), ("opacus", "plain"), ("ours", "opacus"))
VIRTUAL_BATCHES = (512, 8192)
MEMORY_CLAIM = 1.5
WARM_UP = 3
SEED = 0
CONFIG = PRESETS["mnist-tutorial"]().config

Data = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[], object]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(json.dumps(peak_memory(*options.peak_of)))
        return
    # Before anything is timed: a child's ru_maxrss starts from the size of its parent.
    memory = measure_memory(options.threads) if options.memory else None
    steps = [
        {"batch": batch, **time_steps(contenders(synthetic(batch)), RATIOS, options.rounds)}
        for batch in options.batch
    ]
    for row in steps:
        del row["seconds"]
    result = {**conditions(options), "steps": steps, "memory": memory}
    print(json.dumps(result, indent=2) if options.json else table(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batch", type=int, nargs="+", default=[250, 1024], help="batch sizes (250 1024)")
    add("--rounds", type=int, default=30, help="timed rounds, after a few to warm up (30)")
    add("--threads", type=int, default=1, help="of torch; one is steadiest (1)")
    add("--memory", action="store_true", help="also the peak memory of a large virtual batch")
    add("--json", action="store_true", help="everything as JSON instead of a table")
    add("--peak-of", nargs=2, help=argparse.SUPPRESS)  # the child of --memory
    return parser.parse_args()


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What a number means nothing without."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    return {
        "machine": f"{platform.platform()}, {cpu}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "opacus", "numpy")},
        **{name: getattr(options, name) for name in ("threads", "rounds")},
        "seed": SEED,
    }


def time_steps(
    steps: dict[str, Step], compared: Sequence[tuple[str, str]], rounds: int
) -> dict[str, Any]:
    """Median seconds of each contender, and the ratios round by round."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            steps[name]()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    ratios = {}
    for over, under in compared:
        each = np.divide(seconds[over], seconds[under])
        low, median, high = np.quantile(each, [0.1, 0.5, 0.9]).tolist()
        ratios[f"{over}/{under}"] = {"median": median, "p10": low, "p90": high}
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {"median_seconds": medians, "ratio": ratios, "seconds": seconds}


def contenders(data: Data) -> dict[str, Step]:
    """The three steps over all of ``data``, each model from the same initial weights."""
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    plain, ours, theirs = (mnist_cnn(torch.Generator().manual_seed(SEED)) for _ in range(3))
    hooked = GradSampleModule(theirs)
    promise = {"noise_multiplier": CONFIG.noise_multiplier, "max_grad_norm": CONFIG.clip_norm}
    opacus = DPOptimizer(sgd(hooked), **promise, expected_batch_size=len(data[0]))
    return {
        "plain": loop(plain, sgd(plain), data),
        "ours": private_step(ours, data),
        "opacus": loop(hooked, opacus, data),
    }


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data) -> Step:
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        loss(model(data[0]), data[1]).backward()
        optimizer.step()

    return step


def private_step(model: nn.Module, data: Data) -> Step:
    """Our step, from the objects that the Trainer builds."""
    everyone = np.arange(len(data[0]))
    take = PrivateStep(
        GraphGradients(model),
        per_example(nn.CrossEntropyLoss()),
        PrivateOptimizer(sgd(model), microbatches=len(everyone)),
        physical_batch_size=CONFIG.physical_batch_size,
    )
    plan = StepPlan(CONFIG.clip_norm, CONFIG.noise_multiplier or 0.0)
    streams, number = Streams(SEED), itertools.count()

    def step() -> None:
        take(
            InMemory(*data),
            plan,
            Draw(everyone, everyone, streams.numpy("noise", step=next(number))),
        )

    return step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=CONFIG.learning_rate)


def synthetic(count: int) -> Data:
    """Images and labels of MNIST's shape; what they show does not change the time."""
    source = torch.Generator().manual_seed(SEED)
    images = torch.rand(count, 1, 28, 28, generator=source)
    return images, torch.randint(10, (count,), generator=source)


def measure_memory(threads: int) -> dict[str, Any]:
    """Peak MiB of one step at each virtual batch size, and how much it grows between them."""
    result: dict[str, Any] = {"virtual_batches": VIRTUAL_BATCHES, "claim": MEMORY_CLAIM}
    for name in ("ours", "opacus"):
        peaks = []
        for batch in VIRTUAL_BATCHES:
            child = [sys.executable, __file__, "--peak-of", name, str(batch)]
            child += ["--threads", str(threads)]
            done = subprocess.run(child, check=True, stdout=subprocess.PIPE)
            peaks.append(json.loads(done.stdout))
        result[name] = {"peaks": peaks, "ratio": peaks[-1]["peak_mib"] / peaks[0]["peak_mib"]}
    return {**result, "holds": result["ours"]["ratio"] <= MEMORY_CLAIM}


def peak_memory(name: str, batch: str) -> dict[str, float]:
    """This process's peak after one step over the first ``batch`` images, and before it."""
    images, labels = synthetic(max(VIRTUAL_BATCHES))
    step = contenders((images[: int(batch)], labels[: int(batch)]))[name]
    before = peak_mib()
    step()
    return {"peak_mib": peak_mib(), "before_the_step_mib": before}


def peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def table(result: dict[str, Any]) -> str:
    """The result for people: medians, and each ratio with its 10-90 % range."""
    lines = [f"{name}: {result[name]}" for name in result if name not in ("steps", "memory")]
    for row in result["steps"]:
        times = [f"{name} {1000 * s:.1f} ms" for name, s in row["median_seconds"].items()]
        lines += ["", f"batch {row['batch']}: {', '.join(times)}"]
        for name, ratio in row["ratio"].items():
            lines.append("  {:13}{median:6.2f}  ({p10:.2f} to {p90:.2f})".format(name, **ratio))
    if memory := result["memory"]:
        lines += ["", f"peak MiB of one step at a virtual batch of {VIRTUAL_BATCHES}"]
        for name in ("ours", "opacus"):
            peaks = [round(peak["peak_mib"]) for peak in memory[name]["peaks"]]
            lines.append(f"  {name:13}{peaks}, ratio {memory[name]['ratio']:.2f}")
        lines.append(
            f"  ours at most {MEMORY_CLAIM}: {'holds' if memory['holds'] else 'does NOT hold'}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
