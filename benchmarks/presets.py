"""The table of presets in the README: test accuracy, ε and time of whole runs, over seeds.

Each figure comes from `python -m dpsgd_torch.train --preset NAME --seed S`, one run after another,
as anyone would run it. Accuracy is on the test set after the last epoch; seconds are of the whole
private run, imports and a twin included. A seeded run is for comparison only: whoever knows the
seed can subtract the noise.
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
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from accountant.statement import round_up
from dpsgd_torch.app.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]

# Tables of many labels have no accuracy: benchmarks/responses.py.
CLASSIFIERS = [name for name, make in PRESETS.items() if make().config.dataset != "responses"]


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        out = (options.out or Path(scratch)).resolve()
        rows = [row(preset, options, out) for preset in options.presets]
    versions = {name: version(name) for name in ("torch", "opacus", "numpy")}
    machine = f"{platform.platform()}, {os.cpu_count()} cores"
    result = {"machine": machine, "versions": versions, "seeds": options.seeds, "presets": rows}
    print(json.dumps(result, indent=2) if options.json else table(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--presets", nargs="+", choices=CLASSIFIERS, default=CLASSIFIERS, metavar="NAME",
        help=f"a row each, of {', '.join(CLASSIFIERS)} (all)")  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="S", help="a run each (1 2 3)")
    add("--compare", action="store_true", help="run each seed again with --no-dp beside it")
    add("--out", type=Path, help="keep the run folders in this one (default: nowhere)")
    add("--data-dir", type=Path, help="the data's folder (default: the user's cache)")
    add("--json", action="store_true", help="every run, as JSON, instead of the table")
    return parser.parse_args()


def row(preset: str, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """All runs of one preset."""
    data = ["--data-dir", str(options.data_dir.resolve())] if options.data_dir else []
    result: dict[str, Any] = {"preset": preset, "private": [], "non_private": []}
    for seed in options.seeds:
        name = f"{preset}-seed-{seed}"
        result["private"].append(train(preset, seed, out / name, data))
        if options.compare:
            again = train(preset, seed, out / f"{name}-no-dp", [*data, "--no-dp"])
            result["non_private"].append(again)
    return result


def train(preset: str, seed: int, out: Path, more: list[str]) -> dict[str, Any]:
    """One run, in a process of its own: what it reached, cost and took."""
    command = [sys.executable, "-m", "dpsgd_torch.train", "--preset", preset, "--seed", str(seed)]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--out", str(out), "--json", *more], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.returncode)  # the run has said why on stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    epochs = [e for e in events if e["event"] == "epoch" and e["model"] != "non-private baseline"]
    return {
        "seed": seed,
        "test_accuracy": epochs[-1]["test_accuracy"],
        "privacy": events[-1]["privacy"],
        "seconds": seconds,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: a row a preset, and what the numbers rest on."""
    compared = any(row["non_private"] for row in result["presets"])
    titles = ["preset", "test accuracy", "ε", "δ", "seconds"]
    titles += ["without privacy"] if compared else []
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for row in result["presets"]:
        private, plain = row["private"], row["non_private"]
        epsilon = round_up(max(run["privacy"]["epsilon"] for run in private))
        seconds = f"{median(run['seconds'] for run in private):.0f}"
        cells = [row["preset"], accuracy(private), epsilon, f"{private[0]['privacy']['delta']:g}"]
        cells += [seconds, *([accuracy(plain)] if plain else [])]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, result["seeds"]))
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines += ["", f"Median (least–most) over seeds {seeds}; {result['machine']}; {versions}."]
    return "\n".join(lines)


def accuracy(runs: list[dict[str, Any]]) -> str:
    values = [run["test_accuracy"] for run in runs]
    return f"{median(values):.2%} ({min(values):.2%}–{max(values):.2%})"


if __name__ == "__main__":
    main()
