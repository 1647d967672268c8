"""How near do lower bounds on ε come to the certified one, and are honest runs left in peace?

    figures    a preset (digits, or mnist-long with --preset) at ε = 1, 3 and 8 with 1,000
               canaries: lower bound ÷ certified ε by each method, beside the model's accuracy and
               the processor's time with and without canaries
    clean      so many honest runs of a small problem, audited and replayed: how many are accused

Every ratio is of one run; --seeds runs more, and the median and the range are told.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.audit import Canaries, replay
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.digits.task import digits_task
from dpsgd_torch.tasks.mnist.task import mnist_task
from dpsgd_torch.tasks.task import Task

PRESETS = {  # as in the presets of these names, the noise calibrated to each ε
    "digits": {"batch_size": 128, "epochs": 30, "clip_norm": 1.0, "learning_rate": 1.0},
    "mnist-long": {"batch_size": 250, "epochs": 15, "clip_norm": 1.5, "learning_rate": 0.25},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("figures", "clean"))
    parser.add_argument("--seeds", type=int, default=3, help="runs at each ε (3)")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="digits", help="(digits)")
    parser.add_argument(
        "--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0], help="(1 3 8)"
    )
    parser.add_argument("--runs", type=int, default=200, help="honest runs (200)")
    parser.add_argument("--canaries", type=int, default=1000, help="in each run (1000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    figures(options) if options.what == "figures" else clean(options)


def figures(options: argparse.Namespace) -> None:
    counts = f"{options.canaries} canaries, {options.seeds} seeds"
    print(f"{options.preset}, {counts}, lower bounds at 95 %", flush=True)
    task = mnist_task("mnist", None, 0.5) if options.preset == "mnist-long" else digits_task(0.0)
    for epsilon in options.epsilons:
        ratios: dict[str, list[float]] = {}
        scores, slower = [], []
        for seed in range(options.seeds):
            with_canaries, report, slow = one(options.preset, task, epsilon, seed, options.canaries)
            alone, _, quick = one(options.preset, task, epsilon, seed, 0)
            for name, bound in [*report.bounds.items(), ("best that assumes nothing", report.best)]:
                ratios.setdefault(name, []).append(bound / report.epsilon)
            scores.append((alone, with_canaries))
            slower.append(slow / quick)
        plain, audited = np.mean(scores, axis=0)
        print(
            f"ε = {epsilon:g}: accuracy {plain:.3f}, with canaries {audited:.3f}; processor's "
            f"time × {np.median(slower):.2f}"
        )
        for name, found in ratios.items():
            spread = f"({min(found):.2f} to {max(found):.2f})"
            print(f"  {name:26}{np.median(found):.2f} {spread}", flush=True)


def one(preset: str, task: Task, epsilon: float, seed: int, canaries: int):
    """Accuracy, the audit's report and the seconds of one run."""
    asked = PRESETS[preset]
    trainer = Trainer(
        task.make_model(torch.Generator().manual_seed(seed)),
        task.loss,
        task.train,
        privacy=Privacy(epsilon=epsilon, delta=1e-5, clip_norm=asked["clip_norm"]),
        batch_size=asked["batch_size"],
        epochs=asked["epochs"],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=asked["learning_rate"]),
        test_tensors=task.test,
        metrics=task.metrics,
        seed=seed,
    )
    inserted = Canaries(canaries).insert(trainer) if canaries else None
    started = time.process_time()
    trainer.fit()
    seconds = time.process_time() - started
    report = inserted.report(trainer) if inserted else None
    return trainer.history.epochs[-1].test["accuracy"], report, seconds


def clean(options: argparse.Namespace) -> None:
    accused = 0
    for seed in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            generator = torch.Generator().manual_seed(seed)
            inputs = torch.rand(200, 30, generator=generator)
            trainer = Trainer(
                torch.nn.Linear(30, 4),
                torch.nn.CrossEntropyLoss(),
                (inputs, torch.randint(4, (200,), generator=generator)),
                privacy=Privacy(epsilon=4, delta=1e-3, clip_norm=0.5),
                batch_size=20,
                epochs=4,
                optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2),
                run_dir=Path(folder) / "run",
                seed=seed,
            )
            canaries = Canaries(100).insert(trainer)
            report = canaries.report(trainer.fit())
            trainer.close()
            faults = report.faults + replay(RunFolder(Path(folder) / "run")).faults
        for fault in faults:
            print(f"seed {seed}: {fault}")
        accused += bool(faults)
    print(f"{accused} of {options.runs} honest runs were accused")


if __name__ == "__main__":
    main()
