"""How far from the true ε are the accountants, what do they cost, and do ours keep their promises?

Ours, dp_accounting, Opacus, prv_accountant and autodp on the same runs of DP-SGD, whose ε is known
from tests/golden (add or remove one record), and on a schedule of 300 noise multipliers, whose ε
is not. Every tool answers in a process of its own, on one core, warmed on a small run, its caches
emptied before every call; what answers within a second is asked three times and the median taken.
A peer that is not installed is left out. One that raises, overruns --limit or asks for more than
--memory has failed at that run, and the rest goes on.

    error     of ε, or of an interval's upper end, over the true ε (over 0.001 if that is larger)
    below     ε claimed below the truth by more than 1e-9 of it: unsafe; a negative ε counts
    misses    intervals that do not hold the truth, itself known to 4e-15
    width     of an interval, over max(1, ε)
    grown     by how much the peak (ru_maxrss) of its process exceeds that after its imports
    core      seconds of a processor over seconds passed: below 1 where others had the machine

Tables give the time that passed. Promises of time are judged on the seconds of a processor: the
same on an idle machine, and all that can be asked of a busy one. Exit status 1 if one of ours
fails. Takes twenty minutes, --quick three.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(  # before numpy is imported, here and in the workers
    OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"
)

import numpy as np
from workers import EXACT, NARROW, TOOLS, Outcome, Row, Worker, release, timed

import accountant
from accountant import COMMON_ORDERS, Event, calibrate_noise, renyi_divergence

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
QUICK = {"seed001", "tfp_tut_b", "opacus_unit", "tiny_delta_a", "eps_zero", "q1e6_a", "tinyeps_a",
         "bigq_a", "bigq_d", "fewsteps_a", "full_b", "full_c"}  # fmt: skip
VERSIONS = ("numpy", "scipy", "dp_accounting", "opacus", "torch", "prv_accountant", "autodp")


def main() -> None:
    options = parse()
    print("\n".join(conditions()))
    rows, schedule = golden_rows(options.quick), schedule_row()
    outcomes: list[Outcome] = []
    for name in chosen(options.quick):
        outcomes += measure(name, [*rows, schedule], options)
    known = [outcome for outcome in outcomes if outcome.row is not schedule]
    priced = [outcome for outcome in outcomes if outcome.row is schedule]
    print(f"\nHow near the truth, over {len(rows)} runs\n\n{accuracy_table(known)}")
    print(f"\nAt what cost\n\n{cost_table(known)}")
    print(f"\nA schedule of {len(schedule.parts)} noise multipliers\n\n{schedule_table(priced)}")
    promises = [*interval_promises(known), *curve_promises(), *search_promises(rows, priced)]
    print("\nWhat we promise\n")
    print("\n".join(f"{'PASS' if kept else 'FAIL'}  {text}" for text, kept in promises))
    write(outcomes, options.out)
    draw(known, options)
    sys.exit(not all(kept for _, kept in promises))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help=f"{len(QUICK)} runs, without the slowest peers")
    add("--limit", type=float, metavar="SECONDS",
        help="that a tool may take over one run (60; 15 if --quick)")  # fmt: skip
    add("--memory", type=float, default=6.0, metavar="GIB",
        help="of address space that a tool may take (6)")  # fmt: skip
    add("--out", type=Path, default=ROOT / "build" / "benchmarks", metavar="FOLDER",
        help="for accountants.csv and accountants.png (build/benchmarks)")  # fmt: skip
    options = parser.parse_args()
    options.limit = options.limit or (15.0 if options.quick else 60.0)
    return options


def conditions() -> list[str]:
    """What a number means nothing without."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    versions = [f"{name} {version(name)}" for name in VERSIONS if find_spec(name)]
    return [
        f"machine: {platform.platform()}, {cpu}, {os.cpu_count()} cores, one used",
        f"load of the machine at the start: {os.getloadavg()[0]:.2f}",
        f"versions: Python {platform.python_version()}, {', '.join(versions)}",
        f"ours: {Path(accountant.__file__).parent}",
    ]


def golden_rows(quick: bool) -> list[Row]:
    return [
        Row(row["name"], [(row["q"], row["sigma"], row["steps"])], row["delta"], row["eps_exact"])
        for row in golden("dpsgd_epsilon")
        if not quick or row["name"] in QUICK
    ]


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]


def schedule_row() -> Row:
    """Noise that changes 300 times, for ten steps each."""
    noise = np.linspace(0.8, 2.0, 300).tolist()
    return Row("schedule", [(0.01, sigma, 10) for sigma in noise], 1e-5)


def chosen(quick: bool) -> Iterator[str]:
    for name, tool in TOOLS.items():
        if find_spec(tool.package) is None:
            print(f"left out: {name}, for {tool.package} is not installed")
        elif quick and tool.slow:
            print(f"left out: {name}, by --quick")
        else:
            yield name


def measure(name: str, rows: list[Row], options: argparse.Namespace) -> list[Outcome]:
    started = time.perf_counter()
    with Worker(name, limit=options.limit, memory=int(options.memory * 2**30)) as worker:
        outcomes = [worker.ask(row) for row in rows]
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return outcomes


def by_tool(outcomes: list[Outcome]) -> Iterator[tuple[str, list[Outcome], list[Outcome]]]:
    """Each tool with its outcomes, and with those that are answers."""
    for name, group in groupby(outcomes, lambda outcome: outcome.tool):
        every = list(group)
        yield name, every, [outcome for outcome in every if not outcome.failure]


def accuracy_table(outcomes: list[Outcome]) -> str:
    lines = [["", "answers", "error: median", "worst", "at", "below"]]
    lines[0] += ["misses", "width: median", "worst", "at"]
    for name, _, answers in by_tool(outcomes):
        intervals = [answer for answer in answers if answer.lower is not None]
        misses = str(sum(answer.misses for answer in intervals)) if intervals else ""
        lines.append([
            name, str(len(answers)), *spread(answers, lambda answer: answer.error, "+.1e"),
            str(sum(answer.below for answer in answers)),
            misses, *spread(intervals, lambda answer: answer.width, ".1e"),
        ])  # fmt: skip
    return table(lines)


def cost_table(outcomes: list[Outcome]) -> str:
    lines = [["", "ms: median", "worst", "at", "core", "MiB: peak", "grown", "failed"]]
    for name, every, answers in by_tool(outcomes):
        peak = max((answer.peak_mib for answer in answers), default=0.0)
        grown = max((answer.grown_mib for answer in answers), default=0.0)
        count = Counter(outcome.failure for outcome in every if outcome.failure)
        failed = ", ".join(f"{number} {kind}" for kind, number in count.most_common()) or "0"
        times = spread(answers, lambda answer: 1000 * answer.seconds, ".1f")
        core = f"{median(answer.core for answer in answers):.2f}" if answers else ""
        lines.append([name, *times, core, f"{peak:.0f}", f"{grown:.0f}", failed])
    return table(lines)


def spread(answers: list[Outcome], value: Callable[[Outcome], float], style: str) -> list[str]:
    """The median, the value furthest from zero, and the run where that is."""
    if not answers:
        return ["", "", ""]
    worst = max(answers, key=lambda answer: abs(value(answer)))
    return [format(median(map(value, answers)), style), format(value(worst), style), worst.row.name]


def schedule_table(outcomes: list[Outcome]) -> str:
    lines = [["", "ε", "seconds", "core", "MiB: peak"]]
    for outcome in outcomes:
        ends = [f"{end:.8g}" for end in (outcome.lower, outcome.upper) if end is not None]
        cells = [" to ".join(ends), f"{outcome.seconds:.3f}", f"{outcome.core:.2f}"]
        cells = [outcome.failure, "", ""] if outcome.failure else cells
        lines.append([outcome.tool, *cells, f"{outcome.peak_mib:.0f}" if cells[1] else ""])
    return table(lines)


def table(lines: list[list[str]]) -> str:
    """Columns flush right, the first flush left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(
        "  ".join([row[0].lstrip().ljust(widths[0]), *row[1:]]).rstrip() for row in rows
    )


Promises = Iterator[tuple[str, bool]]  # what was promised and measured, and whether it was kept


def interval_promises(outcomes: list[Outcome]) -> Promises:
    answers = {name: got for name, _, got in by_tool(outcomes)}
    wide, narrow = answers[EXACT], answers[NARROW]
    asked = sum(outcome.tool == EXACT for outcome in outcomes)
    held = sum(not answer.misses for answer in wide + narrow)
    yield f"intervals hold the truth: {held} of {2 * asked}", held == 2 * asked
    met = sum(answer.width <= default_width(answer.row.truth) for answer in wide)
    yield f"width ≤ 1e-4 × max(1, ε), below 0.01 1e-3 × ε: {met} of {asked}", met == asked
    middle = median(answer.busy for answer in wide)
    yield f"  median time ≤ 50 ms: {1000 * middle:.1f} ms", middle <= 0.05
    worst = max(wide, key=lambda answer: answer.busy)
    yield f"  worst time ≤ 0.5 s: {worst.busy:.3f} s ({worst.row.name})", worst.busy <= 0.5
    peak = max(answer.peak_mib for answer in wide)
    yield f"  whole process ≤ 200 MiB: {peak:.0f} MiB", peak <= 200
    got = sum(answer.width <= 1e-8 * min(answer.row.truth, 1.0) for answer in narrow)
    worst = max(narrow, key=lambda answer: answer.busy)
    text = f"width 1e-8 × ε asked for, which {got} of {asked} get, worst time ≤ 1 s"
    yield f"{text}: {worst.busy:.3f} s ({worst.row.name})", worst.busy <= 1


def default_width(epsilon: float) -> float:
    """Promised over max(1, ε)."""
    return 1e-3 * epsilon if epsilon < 0.01 else 1e-4


def curve_promises() -> Promises:
    step = release(250 / 60000, 1.3)
    _, _, seconds = timed(lambda: renyi_divergence(step, COMMON_ORDERS), repeats=200)
    yield f"Rényi curve of 151 orders ≤ 1 ms: {1000 * seconds:.3f} ms", seconds <= 1e-3
    errors = []
    for (rate, noise), group in groupby(golden("rdp_exact"), lambda r: (r["q"], r["sigma"])):
        points = list(group)
        curve = renyi_divergence(release(rate, noise), [point["alpha"] for point in points])
        truths = [Fraction(point["value"]) for point in points]
        errors += [float(Fraction(v) / t - 1) for v, t in zip(curve.tolist(), truths, strict=True)]
    low, high = min(errors), max(errors)
    text = f"  relative error ≤ 1e-10 at {len(errors)} points: {low:+.1e} to {high:+.1e}"
    yield text, max(-low, high) <= 1e-10


def search_promises(rows: list[Row], schedule: list[Outcome]) -> Promises:
    (ours,) = (outcome for outcome in schedule if outcome.tool == EXACT)
    yield f"schedule of 300 noise multipliers ≤ 2 s: {ours.busy:.3f} s", ours.busy <= 2
    searches = [(*calibration(row), row.name) for row in rows if row.truth > 0]
    off, which = max((abs(off), name) for _, off, name in searches)
    seconds, _, where = max(searches)
    middle = median(search[0] for search in searches)
    text = f"noise from ε ≤ 0.5 s: {seconds:.3f} s ({where}), median {middle:.3f} s"
    yield f"{text}, off by {off:.0e} at most ({which})", seconds <= 0.5


def calibration(row: Row) -> tuple[float, float]:
    """Seconds to find the noise from the row's true ε, and its error over the row's noise."""
    ((rate, noise, steps),) = row.parts

    def runs_at(trial: float) -> list[tuple[Event, int]]:
        return [(release(rate, trial), steps)]

    found, _, seconds = timed(lambda: calibrate_noise(row.truth, row.delta, runs_at))
    return seconds, found / noise - 1


def write(outcomes: list[Outcome], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "accountants.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        measured = ["lower", "upper", "seconds", "busy", "peak_mib", "grown_mib", "failure"]
        lines.writerow(["tool", "run", "delta", "exact", *measured])
        for outcome in outcomes:
            row = outcome.row
            values = [getattr(outcome, name) for name in measured]
            lines.writerow([outcome.tool, row.name, row.delta, row.exact, *values])


def draw(outcomes: list[Outcome], options: argparse.Namespace) -> None:
    """A band a tool, in it the runs from the least ε down: left the errors, right the times."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    runs = sorted({(outcome.row.truth, outcome.row.name) for outcome in outcomes})
    place = {name: i / len(runs) - 0.5 for i, (_, name) in enumerate(runs)}
    tools = list(by_tool(outcomes))
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(14, 0.75 * len(tools) + 1.8), layout="constrained"
    )
    labels = []
    for line, (name, every, answers) in enumerate(tools):
        for unsafe, colour, middle in ((False, "C0", line - 0.23), (True, "C3", line + 0.23)):
            some = [answer for answer in answers if answer.below == unsafe]
            heights = [middle + 0.4 * place[answer.row.name] for answer in some]
            left.scatter([max(abs(a.error), 1e-16) for a in some], heights, s=8, color=colour)
        failed = [outcome for outcome in every if outcome.failure]
        for some, style in ((answers, {"color": "C0"}), (failed, {"color": "C3", "marker": "x"})):
            heights = [line + 0.8 * place[outcome.row.name] for outcome in some]
            times = [3 * options.limit if o.failure else o.seconds for o in some]
            right.scatter(times, heights, s=8, **style)
        if answers:
            right.plot([median(a.seconds for a in answers)] * 2, [line - 0.45, line + 0.45], "k")
        counts = f"{sum(answer.below for answer in answers)} below, {len(failed)} failed"
        labels.append(f"{name}\n{counts}")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.grid(axis="x", alpha=0.3)
        for line in range(0, len(tools), 2):
            axes.axhspan(line - 0.5, line + 0.5, color="0.95", zorder=0)
    left.set_yticks(range(len(tools)), labels)
    left.set_ylim(len(tools) - 0.5, -0.5)
    left.set_xlabel("relative error of ε: above the truth in blue, below it (unsafe) in red")
    right.set_xlabel("seconds; a bar at the median, × where there was no answer")
    figure.suptitle(f"ε of {len(runs)} runs of DP-SGD, one core; in each band the least ε on top")
    figure.savefig(options.out / "accountants.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
