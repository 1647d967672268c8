"""Accuracy at equal ε of the presets for small data, over seeds: a table for docs/accuracy.md.

A row each for scikit-learn's digits (`digits-best`), made-up gestures (`gesture-best`), recorded
ones where their folder is given, and drug responses (`moa`, log loss, made up). Each figure comes
from `python -m dpsgd_torch.train --preset NAME --epsilon E --seed S`, a process a run, as anyone
would run it: the test part after the last epoch, and seconds of the whole process. What is made up
is made by the first run and read from the cache by the others. ε is exact: add or remove one,
Poisson, δ = 1e-5, of gestures 1e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """A preset, the flags beside ε and seed, and which figure of its last epoch is told."""

    flags: tuple[str, ...]
    figure: str = "test_accuracy"

    def told(self, value: float) -> str:
        return f"{value:.5f}" if self.figure == "test_loss" else f"{100 * value:.1f}"


ROWS = {
    "digits": Row(("--preset", "digits-best")),
    "digits, no prior": Row(("--preset", "digits-best", "--no-prior")),
    "gestures": Row(("--preset", "gesture-best")),
    "responses": Row(("--preset", "moa"), "test_loss"),
}


def main() -> None:
    options = parse()
    rows = {name: ROWS[name] for name in options.rows}
    if options.data_dir:
        recorded = ("--preset", "gesture-best", "--data-dir", str(options.data_dir))
        rows["gestures, recorded"] = Row(recorded)
    titles = ["", *(f"ε = {epsilon:g}" for epsilon in options.epsilons), "s, whole run"]
    print("| " + " | ".join(titles) + " |\n|---" + "|---:" * (len(titles) - 1) + "|", flush=True)
    for name, row in rows.items():
        cells, seconds = [], []
        for epsilon in options.epsilons:
            runs = [run(row, epsilon, seed) for seed in options.seeds]
            found = [each for each, _ in runs]
            least, most = row.told(min(found)), row.told(max(found))
            cells.append(f"{row.told(median(found))} ({least}–{most})")
            seconds += [took for _, took in runs]
        cells.append(f"{median(seconds):.0f} (first {seconds[0]:.0f})")
        print("| " + " | ".join([name, *cells]) + " |", flush=True)
    seeds = ", ".join(map(str, options.seeds))
    print(f"\nMedian (least–most) over seeds {seeds}; {platform.platform()}, "
          f"{os.cpu_count()} cores; torch {version('torch')}.")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="NAME",
        help=f"of {'; '.join(ROWS)} (all)")  # fmt: skip
    add("--data-dir", type=Path, help="a folder of recorded gestures: a row more")
    add("--epsilons", type=float, nargs="+", default=[1.0, 2.0, 3.0, 8.0], metavar="E")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="S", help="a run each")
    return parser.parse_args()


def run(row: Row, epsilon: float, seed: int) -> tuple[float, float]:
    """The figure and the seconds of one run, in a process of its own."""
    command = [sys.executable, "-m", "dpsgd_torch.train", *row.flags, "--json"]
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        started = time.monotonic()
        done = subprocess.run(
            [*command, "--epsilon", str(epsilon), "--seed", str(seed), "--out", out],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.returncode)  # the run has said why on stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    spent = events[-1]["privacy"]["epsilon"]
    if spent > epsilon:
        sys.exit(f"{' '.join(row.flags)}: spent ε = {spent}, above {epsilon}")
    epochs = [event for event in events if event["event"] == "epoch"]
    return float(epochs[-1][row.figure]), seconds


if __name__ == "__main__":
    main()
