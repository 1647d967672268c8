"""What does a private step cost on a GPU, beside a plain one and beside Opacus?

For each model, in one process and in turn, ratios within a round:

    plain    zero_grad, forward, backward, step: without privacy
    ours     what the Trainer runs, with noise from numpy on the CPU
    philox   the same with noise drawn on the device (``--noise-generator philox``)
    hooks    Opacus's GradSampleModule and DPOptimizer
    ghost    Opacus's fast gradient clipping

Time of a step and the most memory of two steps, ÷ plain; and examples a second. A contender that
fails says why. Last: whether a run that is interrupted and resumed gives the same weights bit for
bit under ``torch.use_deterministic_algorithms``, with either noise.

``--device cpu --small`` runs everything on any machine, in two minutes: small models, few rounds.
On a GPU: ``CUBLAS_WORKSPACE_CONFIG=:4096:8 python benchmarks/gpu.py --json gpu.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: deterministic
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from contenders import CONTENDERS, Case, Ours, Step
from model_zoo import group_norms, lora, made, of_next_words
from step import conditions
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_map

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.noise.on_device import ON_DEVICE

WARM_UP = 3
NOISES = {"numpy": INDEPENDENT, "philox": ON_DEVICE}


def gpt2() -> nn.Module:
    """Of GPT-2 small's size, with random weights and no dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False)
    return GPT2LMHeadModel(config)


def texts(rows: int, length: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(50257, (rows, length))
    return ids, ids  # the loss compares each with the one before


def resnet50() -> nn.Module:
    import torchvision

    return torchvision.models.resnet50(norm_layer=group_norms)


def vit_b_16() -> nn.Module:
    import torchvision

    return torchvision.models.vit_b_16(dropout=0.0, attention_dropout=0.0)


def pictures(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 3, 224, 224), torch.randint(1000, (rows,))


def next_words(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    return of_next_words(outputs, targets)


Made = Callable[[int], Case]


def case(make: Callable[[], nn.Module], batch: Any, loss: Any) -> Made:
    def with_rows(rows: int) -> Case:
        torch.manual_seed(0)
        return (make(), *batch(rows), loss)

    return with_rows


LARGE: dict[str, tuple[Made, int]] = {
    "MNIST CNN": (lambda rows: made("mnist_cnn", rows), 1024),
    "ResNet-50, GroupNorm": (case(resnet50, pictures, nn.CrossEntropyLoss()), 64),
    "ViT-B/16": (case(vit_b_16, pictures, nn.CrossEntropyLoss()), 64),
    "GPT-2 small, LoRA": (
        case(lora(gpt2, "c_attn", fan_in_fan_out=True), texts, next_words),
        16,
    ),
    "GPT-2 small, full": (case(gpt2, texts, next_words), 16),
}
SMALL: dict[str, tuple[Made, int]] = {
    "MNIST CNN": (lambda rows: made("mnist_cnn", rows), 64),
    "ResNet-18, GroupNorm": (lambda rows: made("resnet18", rows), 4),
    "ViT, tiny": (lambda rows: made("vit", rows), 4),
    "GPT-2, tiny, LoRA": (lambda rows: made("lora_gpt2", rows), 4),
    "GPT-2, tiny, full": (lambda rows: made("hf_gpt2", rows), 4),
}
GOALS = {"MNIST CNN": 1.3, "GPT-2 small, LoRA": 1.15, "GPT-2 small, full": 1.3}


def main() -> None:
    options = parse()
    warnings.simplefilter("ignore")  # what libraries warn of is not ours to print
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print("{machine}, {versions}".format(**conditions(options)))
    print(name_of(device), flush=True)
    result: dict[str, Any] = {**conditions(options), "device": name_of(device), "rows": []}
    models = SMALL if options.small else LARGE
    for name in models:
        if options.models and not any(each in name for each in options.models):
            continue
        found = measured(*models[name], device, options.rounds)
        result["rows"].append({"model": name, **found})
        print(told(name, found), flush=True)
    result["resumes"] = {name: resumes(device, name) for name in NOISES}
    print(f"a resumed run is bit for bit the same, deterministic: {result['resumes']}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda", help="where (cuda)")
    add("--small", action="store_true", help="small models and batches, for any machine")
    add("--models", nargs="+", help="those whose name has one of these words (all)")
    add("--rounds", type=int, help="timed rounds, after three to warm up (20; with --small 3)")
    add("--threads", type=int, default=1, help="of torch on the CPU (1)")
    add("--json", metavar="FILE", help="write everything there too")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.small else 20)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"device = {options.device}: there is none here; pass --device cpu --small")
    return options


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def contender(name: str, make: Made, rows: int, device: torch.device) -> Step:
    model, inputs, targets, loss = make(rows)
    inputs, targets = tree_map(lambda x: x.to(device), (inputs, targets))
    ready = (model.to(device), inputs, targets, loss)
    if name not in ("ours", "philox"):
        return CONTENDERS[name](ready)
    ours = Ours(ready)
    ours.optimizer.noise = NOISES["numpy" if name == "ours" else name]
    return ours


def measured(make: Made, rows: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """Memory of each alone, then all in turn; those that failed are left out and say why."""
    names, failed, memory = ["plain", "ours", "philox", "hooks", "ghost"], {}, {}
    for name in names:
        try:
            memory[name] = peak(contender(name, make, rows, device), device)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}".split("\n")[0][:60]
        clear(device)
    left = [name for name in names if name not in failed]
    try:
        seconds = in_turn({n: contender(n, make, rows, device) for n in left}, device, rounds)
    except torch.OutOfMemoryError:  # not all at once: one after the other, in rounds of one each
        clear(device)
        seconds = {
            n: in_turn({n: contender(n, make, rows, device)}, device, rounds)[n] for n in left
        }
    clear(device)
    plain = np.array(seconds["plain"])
    return {
        "batch": rows,
        "seconds": {n: float(np.median(s)) for n, s in seconds.items()},
        "time": {n: np.quantile(s / plain, [0.5, 0.1, 0.9]).tolist() for n, s in seconds.items()},
        "memory": {n: m / memory["plain"] for n, m in memory.items()},
        "examples_per_second": {n: rows / float(np.median(s)) for n, s in seconds.items()},
        "failed": failed,
    }


def in_turn(steps: dict[str, Step], device: torch.device, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + rounds):
        order = list(steps)
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            wait(device)
            started = time.perf_counter()
            steps[name]()
            wait(device)
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clear(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak(step: Step, device: torch.device) -> float:
    """Bytes of tensors that two steps hold at most, model and batch included on a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step(), step()
        wait(device)
        return float(torch.cuda.max_memory_allocated(device))
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step(), step()
    events = seen.profiler.kineto_results.events()
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return float(np.cumsum([size for _, size in memory]).max())


@contextlib.contextmanager
def quiet() -> Any:
    """Without stderr, on which the profiler says when it starts and stops."""
    held, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(held, 2)
        os.close(held), os.close(nothing)


def resumes(device: torch.device, noise: str) -> str:
    """Whether a run left after three steps and resumed ends as one that was not, bit for bit."""
    with tempfile.TemporaryDirectory() as folder, deterministic(), contextlib.ExitStack() as open_:
        made = (trainer(device, noise, Path(folder) / name) for name in ("whole", "left", "left"))
        try:
            whole = open_.enter_context(contextlib.closing(next(made))).fit()
            with (
                contextlib.closing(next(made)) as left,  # one process at a time holds a ledger
                contextlib.closing(left.run()) as steps,
            ):
                for _ in itertools.islice(steps, 3):
                    pass
            again = open_.enter_context(contextlib.closing(next(made))).resume().fit()
        except Exception as error:
            return f"{type(error).__name__}: {error}".split("\n")[0][:100]
        pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
        same = all(torch.equal(one, other) for one, other in pairs)
        paid = again.privacy_spent().steps_charged_again
        return f"{'yes' if same else 'no'}, {paid} steps paid again"


def trainer(device: torch.device, noise: str, folder: Path) -> Trainer:
    model, inputs, targets, loss = made("mnist_cnn", 256)
    return Trainer(
        model,
        loss,
        (inputs, targets),
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1.0, noise=NOISES[noise]),
        batch_size=64,
        epochs=2,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        checkpoint_every=2,
        run_dir=folder,
        device=device,
        seed=1,
    )


@contextlib.contextmanager
def deterministic() -> Any:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def told(name: str, found: dict[str, Any]) -> str:
    goal = f", goal {GOALS[name]}" if name in GOALS else ""
    lines = [f"{name} × {found['batch']}{goal}: plain {1000 * found['seconds']['plain']:.2f} ms"]
    for each, (middle, low, high) in found["time"].items():
        lines.append(
            f"  {each:7} time {middle:6.2f} ({low:.2f}–{high:.2f}), memory "
            f"{found['memory'][each]:5.2f}, {found['examples_per_second'][each]:9.0f} examples/s"
        )
    lines += [f"  {each:7} fails: {why}" for each, why in found["failed"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
