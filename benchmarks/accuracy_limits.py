"""What limits the presets for small data: the same training without noise, and without clip either.

Beside each preset's own run at ε stand the same steps with a millionth of the clip norm as noise
("no noise": what the clip alone costs) and without privacy ("neither": what features, steps and
rows allow). These two are no private runs: they are for data that may be looked at, as the made-up
and public data here are. Median (least–most) of the test part after the last epoch, over seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import torch
from accuracy_small import ROWS, Row
from command import conditions

from dpsgd_torch.app.assembly import make_trainer
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.explain import changed
from dpsgd_torch.app.flags import parse as parse_run
from dpsgd_torch.app.folds import Fold
from dpsgd_torch.app.preprocessing import Preprocessing
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.unfit_rows import untold

KINDS = ("private", "no noise", "neither")


def main() -> None:
    options = parse()
    kinds = options.kinds
    print("| | " + " | ".join(kinds) + " |\n|---" + "|---:" * len(kinds) + "|", flush=True)
    for name in options.rows:
        row = ROWS[name]
        for epsilon in options.epsilons:
            config = parse_run([*row.flags, "--epsilon", str(epsilon)]).preset.config
            task, cells = load_task(config, options.data_dir), []
            for kind in kinds:
                found = list(reached(config, task, kind, row, options.seeds))
                cells.append(row.told(found))
            print(f"| {name}, ε = {epsilon:g} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{conditions(options.seeds)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", nargs="+", choices=ROWS, default=["digits", "gestures"], metavar="NAME",
        help=f"of {'; '.join(ROWS)} (digits gestures)")  # fmt: skip
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND",
        help=f"of {', '.join(KINDS)} (all)")  # fmt: skip
    add("--data-dir", type=Path, help="a folder of recorded gestures, with --rows gestures alone")
    add("--epsilons", type=float, nargs="+", default=[1.0, 8.0], metavar="E")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="S", help="a run each")
    return parser.parse_args()


def reached(
    config: RunConfig, task: Task, kind: str, row: Row, seeds: list[int]
) -> Iterator[float]:
    """The figure of each seed's run; label frequencies, where one starts from them, are exact."""
    task = with_frequencies(config, task)
    rows = len(task.train[1])
    config = dataclasses.replace(config, dataset_size=rows, frequencies_epsilon=None)
    asked = changed(config, kind)
    if kind == "no noise":
        asked = dataclasses.replace(asked, epsilon=None)  # it would be spent before a step
    fold = Fold("training", asked, task.train, None, None)
    for seed in seeds:
        with untold(), redirect_stdout(io.StringIO()):
            trainer = make_trainer(fold, task, seed, Preprocessing(), None, None)
            for _ in trainer.run():
                pass
        yield trainer.history.epochs[-1].test[row.figure.removeprefix("test_")]


def with_frequencies(config: RunConfig, task: Task) -> Task:
    """The task whose model starts at its training rows' own frequencies, where it asks for them."""
    table = task.table
    if table is None or config.frequencies_epsilon is None:
        return task
    found, columns = task.train[1].mean(dim=0).clamp_min(1e-6), len(table.columns)

    def make_model(generator: torch.Generator) -> torch.nn.Module:
        return table.make_model(generator, columns, found)

    return dataclasses.replace(task, make_model=make_model)


if __name__ == "__main__":
    main()
