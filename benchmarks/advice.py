"""Where `dpsgd advise` has its rules from: private trainings on made-up rows, and a fit to them.

Trains linear heads and small networks at equal δ = 1e-5 over n, ε, steps and learning rates; fits
two laws for each kind by least squares (the best learning rate, and the part of the accuracy above
chance that is kept); and says how far they are off on a case that was left out of the fit, and on
other generators and public images that no fit saw. With --write the coefficients go to
dpsgd_torch/advice/measured.json, with the date and this command. Nothing private is opened, and
no row is kept. Some ten minutes on one core; --cells FILE keeps what was measured, or reads it.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import advice_cases
import advice_grid
import advice_networks
import numpy as np
import torch

from dpsgd_torch.advice.law import Law, mu_of, noise_of_run, regressors

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ROOT / "dpsgd_torch" / "advice" / "measured.json"
_COMMAND = "python benchmarks/advice.py --write"
_LEAST, _MOST = 0.03, 0.99  # of what is kept: outside, a logit is of chance among test rows
SETTLED = 60  # steps, from which on more did not help beyond what they do to κ
_RATE_FROM = 0.15  # kept, from which on a best learning rate can be told

Cell = dict[str, Any]


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    kept = options.cells is not None and options.cells.exists()
    measured = read(options.cells) if kept else measure()
    if options.cells and not kept:
        options.cells.write_text(json.dumps(measured))
    answer: dict[str, Any] = {"date": datetime.date.today().isoformat(), "command": _COMMAND}
    for kind in ("head", "network"):
        inside, outside = (seen(measured[f"{kind} {which}"]) for which in ("fitted", "held out"))
        law = fit(inside)
        print(f"\n{kind}: {len(inside)} settings; rate {law.rate}, kept {law.kept}")
        rows = {**left_out(inside), **{f"{c} (never fitted)": errors(law, part)
                                       for c, part in by_case(outside).items()}}  # fmt: skip
        print(table(rows))
        answer[kind] = {
            "rate": [round(c, 4) for c in law.rate],
            "kept": [round(c, 4) for c in law.kept],
            "settled": law.settled,
            "measured": law.measured,
            "errors": {"fitted_cells": len(inside), **summary(rows.values())},
        }
        print(by_steps(inside + outside), lost_by_steps(rows.values()), sep="\n")
    if options.write:
        WRITTEN.write_text(json.dumps(answer, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="the coefficients, for dpsgd advise")
    parser.add_argument("--cells", type=Path, metavar="FILE", help="of what was measured, as JSON")
    return parser.parse_args()


def read(path: Path) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = json.loads(path.read_text())
    return found


def measure() -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for which, cases in (("fitted", advice_cases.fitted), ("held out", advice_cases.held_out)):
        cells = found.setdefault(f"head {which}", [])
        for case in cases():
            print(case.name, file=sys.stderr, flush=True)
            cells += advice_grid.cells(case)
    networks = (("fitted", advice_networks.fitted), ("held out", advice_networks.held_out))
    for which, cells_of in networks:
        print(f"networks, {which}", file=sys.stderr, flush=True)
        found[f"network {which}"] = list(cells_of())
    return found


def seen(cells: list[Cell]) -> list[Cell]:
    """Private cells, with κ, what is kept at each rate, and the best rate between those tried."""
    free = {(c["case"], c["n"]): max(c["accuracy"]) for c in cells if c["epsilon"] is None}
    found = []
    for c in cells:
        if c["epsilon"] is None:
            continue
        top = free[c["case"], c["n"]] - c["chance"]
        kept = [(a - c["chance"]) / top for a in c["accuracy"]]
        mu = mu_of(c["epsilon"], advice_grid.DELTA)
        kappa = noise_of_run(c["n"], c["batch"], c["steps"], mu)
        found.append({**c, "kappa": kappa, "kept": kept, "best": _best(c["rates"], kept)})
    return found


def _best(rates: list[float], kept: list[float]) -> float | None:
    """The top of a parabola in log η through the best and its neighbours; None at an end."""
    i = int(np.argmax(kept))
    if not 0 < i < len(rates) - 1 or kept[i] < _RATE_FROM:
        return None
    left, middle, right = kept[i - 1 : i + 2]
    bent = left - 2 * middle + right
    moved = 0.5 * (left - right) / bent if bent < 0 else 0.0
    return float(rates[i] * (rates[i + 1] / rates[i]) ** moved)


def fit(cells: list[Cell]) -> Law:
    """Least squares for both laws; the errors are filled in by who asks."""

    def solved(part: list[Cell], values: list[float], most: float = math.inf) -> tuple[float, ...]:
        x = np.array([regressors(c["kappa"], min(c["steps"], most)) for c in part])
        return tuple(float(v) for v in np.linalg.lstsq(x, np.array(values), rcond=None)[0])

    told = [c for c in cells if c["best"] is not None]
    within = [min(max(max(c["kept"]), _LEAST), _MOST) for c in cells]
    return Law(
        rate=solved(told, [math.log(c["best"]) for c in told]),
        kept=solved(cells, [math.log(k / (1 - k)) for k in within], SETTLED),
        settled=SETTLED,
        measured={name: (min(c[name] for c in cells), max(c[name] for c in cells))
                  for name in ("n", "kappa", "parameters", "steps")},
        errors={},
    )  # fmt: skip


def by_case(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for c in cells:
        found.setdefault(c["case"], []).append(c)
    return found


def left_out(cells: list[Cell]) -> dict[str, dict[str, Any]]:
    """The errors on each case of a law that was fitted to the others."""
    return {
        case: errors(fit([c for c in cells if c["case"] != case]), part)
        for case, part in by_case(cells).items()
    }


def errors(law: Law, cells: list[Cell]) -> dict[str, Any]:
    """Of what is kept, and what its learning rate loses to the best of the grid, each cell's."""
    off, lost = [], []
    for c in cells:
        found = (c["kappa"], c["steps"])
        off.append(law.share_kept(*found) - max(c["kept"]))
        at = np.interp(math.log(law.learning_rate(*found)), np.log(c["rates"]), c["kept"])
        lost.append(max(c["kept"]) - float(at))
    return {"off": off, "lost": lost, "steps": [c["steps"] for c in cells]}


def by_steps(cells: list[Cell]) -> str:
    """What more steps add to what is kept, at the best rate for each."""
    kept: dict[tuple[Any, ...], dict[int, float]] = {}
    for c in cells:
        kept.setdefault((c["case"], c["n"], c["epsilon"]), {})[c["steps"]] = max(c["kept"])
    lines = []
    for few, many in itertools.pairwise(advice_grid.STEPS):
        more = [100 * (v[many] - v[few]) for v in kept.values() if {few, many} <= set(v)]
        lines.append(f"{many} steps in place of {few}: {np.mean(more):+.1f} points "
                     f"(standard deviation {np.std(more):.1f}, {len(more)} settings)")  # fmt: skip
    return "\n".join(lines)


def lost_by_steps(rows: Iterable[dict[str, Any]]) -> str:
    """What the rate loses on cases left out, by the number of steps."""
    pairs = [pair for row in rows for pair in zip(row["steps"], row["lost"], strict=True)]
    lines = []
    for count in advice_grid.STEPS:
        lost = [100 * value for steps, value in pairs if steps == count]
        tenths = np.quantile(lost, 0.9)
        lines.append(
            f"{count} steps: the rate loses {median(lost):.1f} points (median), {tenths:.1f} in "
            f"nine of ten, {max(lost):.1f} at most"
        )
    return "\n".join(lines)


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    rows = list(rows)
    off, lost = ([v for row in rows for v in row[name]] for name in ("off", "lost"))
    return {
        "kept_rms": round(math.sqrt(sum(v * v for v in off) / len(off)), 4),
        "kept_most": round(max(map(abs, off)), 4),
        "regret_median": round(median(lost), 4),
        "regret_nine_tenths": round(float(np.quantile(lost, 0.9)), 4),
        "regret_most": round(max(lost), 4),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, in points of what is kept."""
    lines = ["| left out | settings | kept: rms error | bias | rate loses: median | most |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, row in [*rows.items()]:
        s = {k: 100 * v for k, v in summary([row]).items()}
        bias = 100 * sum(row["off"]) / len(row["off"])
        lines.append(f"| {name} | {len(row['off'])} | {s['kept_rms']:.1f} | {bias:+.1f} | "
                     f"{s['regret_median']:.1f} | {s['regret_most']:.1f} |")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
