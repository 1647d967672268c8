"""What does a private step cost on the models that people bring, beside a step without privacy?

Each model is as its library makes it (the tests' zoo: tiny, random weights, no dropout), each batch
so large that a plain step takes 30 ms and more. One thread; the contenders of a model run in one
process. A round takes one step of each, in an order that rotates; ratios are taken within a round,
and the middle one is shown with where 80 % of them lie.

    plain   zero_grad, forward, backward, step: without privacy
    ours    what the Trainer runs: per-example gradients, clip, float64 sums, fresh noise, the
            checks of every release, step
    hooks   Opacus's GradSampleModule and DPOptimizer
    ghost   Opacus's GradSampleModuleFastGradientClipping and its loss and optimizer

Opacus is helped where it fails by itself: its own layers for torch's, no operation in place, ids of
positions written out (contenders.py). Where it fails all the same, or we do, a word says why.

Memory is the most that two steps hold above the model and its batch, in a fresh process for each:
MiB of tensors as torch's allocator counts them, and of the process (the high-water mark of its
resident set; it holds what the libraries load at their first use too, so that its ratios are
nearer 1). A contender that takes longer than --limit for these is left out of the rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads forked from would hang
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from contenders import CONTENDERS, Ours, Step
from model_zoo import made
from step import conditions
from torch.profiler import ProfilerActivity, profile

WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """A model of the zoo, its batch, and what issue 13 wants of time and memory."""

    model: str
    batch: int
    time: float | None = None
    memory: float | None = None
    piece: int | None = None  # rows at once for Opacus's hooks, where all would not fit

    @property
    def name(self) -> str:
        return f"{self.model} ×{self.batch}"


ROWS = (
    Row("mnist_cnn", 250, 1.2, 1.3),
    Row("mnist_cnn", 1024, 1.1, 1.3),
    Row("resnet18", 32, 1.8, 1.6),
    Row("mobilenet_v2", 32, 2.0, 1.6),
    Row("timm_convnext_atto", 32, 1.5, 1.5),
    Row("hf_vit", 32, 1.3, 1.3),
    Row("vit", 32, 1.3, 1.3),
    Row("timm_vit", 32, 1.3, 1.3),
    Row("hf_bert", 64, 1.3, 1.3),
    Row("hf_gpt2", 32, 1.3, 1.3),
    Row("hf_llama", 32, 1.3, 1.3),
    Row("lora_hf_vit", 32, 1.1, 1.1),
    Row("lora_bert", 64, 1.1, 1.1),
    Row("lora_gpt2", 32, 1.1, 1.1),
    Row("lora_llama", 32, 1.1, 1.1),
    Row("embedding_20k", 4096, 1.6, 1.3, piece=256),
    Row("lstm", 512, 2.0, 1.5),
    Row("mlp_4m", 1024, 1.15, 1.15, piece=64),
    Row("transformer", 256),
    Row("conv3d", 512),
)
REASONS = {  # what an error says → a short word for it
    r"tying is not supported": "tied weights",
    r"'dict'|not dict": "dict of inputs",
    r"has no per-example|comes in or goes out": "layer refused",
    r"inplace": "in place",
    r"UnsupportedModule|not support": "unsupported",
}


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    wanted = [row for row in ROWS if not options.models or row.model in options.models]
    result: dict[str, Any] = {**conditions(options), "rows": []}
    print(f"{result['machine']}; {result['versions']}; rounds {options.rounds}\n{HEAD}", flush=True)
    for row in wanted:
        peaks = {name: peak_of(row, name, options) for name in CONTENDERS}
        found = {"memory": peaks, **in_a_fork(timed, row, peaks, options)}
        result["rows"].append({"model": row.name, "goal": [row.time, row.memory], **found})
        print(line(row, found, options.split), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = ", ".join(dict.fromkeys(row.model for row in ROWS))
    add("--models", type=lambda text: text.split(","), help=f"some of {names} (all)")
    add("--rounds", type=int, default=10, help="timed rounds, after two to warm up (10)")
    add("--limit", type=float, default=60, help="seconds for two steps of one contender (60)")
    add("--gradients", default="graph", help="our kind of per-example gradients (graph)")
    add("--split", action="store_true", help="also what part of ours is engine, and what noise")
    add("--json", metavar="FILE", help="write everything there too")
    options = parser.parse_args()
    unknown = {*(options.models or ())} - {row.model for row in ROWS}
    if unknown:
        parser.error(f"--models = {', '.join(sorted(unknown))}: must be of {names}")
    options.threads = 1
    return options


def step_of(row: Row, name: str, options: argparse.Namespace) -> Step:
    """A contender with a model of its own."""
    more = {"ours": {"kind": options.gradients}, "hooks": {"piece": row.piece}}.get(name, {})
    return CONTENDERS[name](made(row.model, row.batch), **more)


# Each measurement is made in a fork: none sees what another left, and a slow one can be ended.


def in_a_fork(function: Callable[..., Any], *given: Any, limit: float | None = None) -> Any:
    """What ``function`` returns, or {"failed": why}."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=answer, args=(theirs, function, given))
    child.start()
    theirs.close()
    try:
        return mine.recv() if mine.poll(limit) else {"failed": f"> {limit:.0f} s"}
    except EOFError:
        return {"failed": "died (memory?)"}
    finally:
        child.terminate()
        child.join()


def answer(to: Any, function: Callable[..., Any], given: Sequence[Any]) -> None:
    warnings.simplefilter("ignore")  # what libraries warn of is not ours to print
    try:
        to.send(function(*given))
    except Exception as error:
        to.send({"failed": short(error), "error": f"{type(error).__name__}: {error}"[:500]})
    to.close()
    os._exit(0)


def peak_of(row: Row, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """{"tensors": MiB, "process": MiB} above the start, or {"failed": why}."""
    found: dict[str, Any] = {}
    for kind in MEASURES:
        found |= in_a_fork(measure, row, name, kind, options, limit=options.limit)
        if "failed" in found:
            break
    return found


def measure(row: Row, name: str, kind: str, options: argparse.Namespace) -> dict[str, float]:
    return {kind: MEASURES[kind](step_of(row, name, options))}


def resident(step: Step) -> float:
    """MiB by which the resident set's high-water mark rises above where it stands now."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts anew
    before = status("VmRSS")
    step(), step()
    return (status("VmHWM") - before) / 1024


def status(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+)", text)[1])


def allocated(step: Step) -> float:
    """MiB of tensors at most, of all that was allocated since now."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the profiler says when it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step(), step()
    events = seen.profiler.kineto_results.events()
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(np.cumsum([size for _, size in memory]).max()) / 2**20


MEASURES = {"process": resident, "tensors": allocated}


def short(error: Exception) -> str:
    said = f"{type(error).__name__}: {error}"
    for pattern, word in REASONS.items():
        if re.search(pattern, said):
            return word
    return said[:24]


# Time: the contenders in turn.


def timed(row: Row, peaks: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    names = [name for name in CONTENDERS if "failed" not in peaks[name]]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    steps = {name: step_of(row, name, options) for name in names}
    for turn in range(WARM_UP + options.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - started)
    ratios = {}
    for name in names:
        each = np.divide(seconds[name], seconds["plain"])[WARM_UP:]
        ratios[name] = np.quantile(each, [0.5, 0.1, 0.9]).tolist()
    found: dict[str, Any] = {"seconds": {k: float(np.median(v)) for k, v in seconds.items()}}
    if isinstance(ours := steps.get("ours"), Ours):
        parts = {part: float(np.median(each[WARM_UP:])) for part, each in ours.seconds.items()}
        found["split"] = {part: each / found["seconds"]["plain"] for part, each in parts.items()}
    return {**found, "ratio": ratios}


HEAD = (
    f"{'':26}{'plain':>8}  {'time of a step ÷ plain':^66}  {'most memory ÷ plain (process)':^60}\n"
    f"{'model × batch':26}{'ms':>8}  {'goal':>5} {'ours':>20} {'hooks':>20} {'ghost':>20}"
    f"  {'MiB':>6} {'goal':>5} {'ours':>15} {'hooks':>15} {'ghost':>15}"
)


def line(row: Row, found: dict[str, Any], split: bool) -> str:
    """One model's row."""
    if "failed" in found:
        return f"{row.name:26}{found['failed']}"
    memory, shown = found["memory"], f"{row.name:26}{1000 * found['seconds']['plain']:8.1f}  "
    shown += f"{row.time or '':>5}"
    for name in ("ours", "hooks", "ghost"):
        if name in found["ratio"]:
            middle, low, high = found["ratio"][name]
            shown += f" {f'{middle:.2f} ({low:.2f}–{high:.2f})':>20}"
        else:
            shown += f" {memory[name]['failed']:>20}"
    shown += f"  {memory['plain']['tensors']:6.0f} {row.memory or '':>5}"
    for name in ("ours", "hooks", "ghost"):
        if "failed" in memory[name]:
            shown += f" {'–':>15}"
            continue
        by = {kind: memory[name][kind] / memory["plain"][kind] for kind in ("tensors", "process")}
        shown += f" {'{tensors:.2f} ({process:.2f})'.format(**by):>15}"
    if split and "split" in found:
        shown += (
            "\n"
            + " " * 26
            + "ours: engine {engine:.2f}, noise {noise:.2f}".format(**found["split"])
        )
    return shown


if __name__ == "__main__":
    main()
