"""How well are gestures told apart: as we advise, as the notebook does, and without privacy?

Each preset at several seeds, on made-up recordings or, with --data-dir, on recorded ones. The
learning rate, clip and batch of ``gesture`` were chosen by the validation part of the made-up
recordings; that inputs are centred, after training without privacy had failed on the validation
parts of both kinds. Here the test part speaks. The notebook's 47,700 steps take minutes a seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

from dpsgd_torch.app.flags import Request
from dpsgd_torch.app.outcome import Outcome
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.progress import JsonPresenter
from dpsgd_torch.app.run import run


class Quiet(JsonPresenter):
    """Nobody watches."""

    def _emit(self, event: str, **fields: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--data-dir", type=Path, help="a folder of recorded gestures")
    parser.add_argument("--presets", nargs="+", default=["gesture", "gesture-notebook"])
    options = parser.parse_args()
    told_machine(options.data_dir)
    print(f"{'':28}{'accuracy: median':>18}{'range':>20}{'ε':>10}{'seconds':>10}")
    for preset in options.presets:
        for name, changes in variants(preset):
            runs = [outcome(preset, changes, seed, options.data_dir) for seed in options.seeds]
            row(f"{preset}{name}", runs)


def told_machine(data_dir: Path | None) -> None:
    print(f"machine: {platform.platform()}, {os.cpu_count()} cores, one used")
    print(f"Python {platform.python_version()}, torch {version('torch')}, "
          f"opacus {version('opacus')}; data: {data_dir or 'made up'}\n")  # fmt: skip


def variants(preset: str) -> list[tuple[str, dict[str, object]]]:
    without = {"dp": False, "epsilon": None}
    more = [(", ε = 8", {"epsilon": 8.0})] if preset == "gesture" else []
    return [("", {}), *more, (", no privacy", without)]


def outcome(
    preset: str, changes: dict[str, object], seed: int, data_dir: Path | None
) -> tuple[Outcome, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        found = finished(preset, changes, seed, data_dir, Path(folder) / "run")
        return found, time.process_time() - started


def finished(
    preset: str, changes: dict[str, object], seed: int, data_dir: Path | None, out: Path
) -> Outcome:
    """A run of the preset, in a folder of its own."""
    made = PRESETS[preset]()
    config = made.config.changed(seed=seed, **changes)
    request = Request(
        preset=dataclasses.replace(made, config=config), data_dir=data_dir,
        out=out, resume=None, json=True, partial="refuse",
    )  # fmt: skip
    return run(request, Quiet())


def row(name: str, runs: list[tuple[Outcome, float]]) -> None:
    scores = [found.history.epochs[-1].test["accuracy"] for found, _ in runs]
    spent = runs[0][0].spent
    print(
        f"{name:28}{median(scores):18.1%}{f'{min(scores):.1%} to {max(scores):.1%}':>20}"
        f"{f'{spent.epsilon:.4f}' if spent else '-':>10}{median(t for _, t in runs):10.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
