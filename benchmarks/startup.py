"""How long does a command take before it does its work, beside what it must load?

CPU seconds (user and system) of whole processes, one after another in an order that rotates; ratios
are taken within a round: what slows the machine for a while slows all alike.

    help      python -m dpsgd_torch.train --help, search's and export's, and flags that are
              refused, over ``import argparse``
    epsilon   python -m accountant epsilon …, over ``import numpy, scipy.special``
    digits    python -m dpsgd_torch.train --preset digits, less its steps, over what every private
              run loads: torch, one of torch's optimizers, and Opacus

The last is shown over ``import torch`` too, without a goal: the first optimizer that is made loads
torch._dynamo, and with Opacus that takes two to three times as long as torch alone.

Exit status: 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ARGPARSE = ("-c", "import argparse")
SPECIAL = ("-c", "import numpy, scipy.special")
TORCH = ("-c", "import torch")
STACK = ("-c", "import torch, opacus; torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)")
EPSILON = "epsilon --n 60000 --batch-size 250 --noise-multiplier 1.3 --epochs 15 --delta 1e-5"
DIGITS = """
import contextlib, sys, tempfile, time
from dpsgd_torch import train

loading, steps = train.loading, []

@contextlib.contextmanager
def then_timed():
    with loading():
        yield
    from dpsgd_torch.app.progress import LinePresenter

    follow = LinePresenter.follow

    def timed(*args):
        started = time.process_time()
        follow(*args)
        steps.append(time.process_time() - started)

    LinePresenter.follow = timed

train.loading = then_timed
with tempfile.TemporaryDirectory() as folder:
    status = train.main(["--preset", "digits", "--seed", "1", "--out", f"{folder}/run"])
print(sum(steps))
sys.exit(status)
"""


@dataclass(frozen=True)
class Claim:
    """A command, what it is held against, and how many times as long it may take."""

    name: str
    command: tuple[str, ...]
    over: tuple[str, ...]
    goal: float | None
    status: int = 0


HELP = [
    *(
        Claim(f"{door} --help", ("-m", f"dpsgd_torch.{door}", "--help"), ARGPARSE, 4.0)
        for door in ("train", "search", "export")
    ),
    Claim("a refused value", ("-m", "dpsgd_torch.train", "--epochs", "0"), ARGPARSE, 4.0, 2),
    Claim("an unknown flag", ("-m", "dpsgd_torch.search", "--epoch", "1"), ARGPARSE, 4.0, 2),
    Claim("accountant epsilon", ("-m", "accountant", *EPSILON.split()), SPECIAL, 1.25),
]
RUN = [
    Claim("digits less its steps / torch, optimizer, Opacus", ("-c", DIGITS), STACK, 1.5),
    Claim("digits less its steps / torch alone", ("-c", DIGITS), TORCH, None),
]


def main() -> int:
    options = parse()
    claims = [
        *measured(HELP, options.rounds),
        *measured(RUN, max(1, options.rounds // 4)),
    ]
    result = {**conditions(options), "claims": claims}
    print(json.dumps(result, indent=2) if options.json else table(result))
    return 0 if all(row["holds"] for row in claims) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=15, help="timed rounds, a quarter of them of whole runs (15)")
    add("--json", action="store_true", help="everything as JSON instead of a table")
    return parser.parse_args()


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What a number means nothing without."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    names = ("torch", "opacus", "numpy", "scipy", "matplotlib")
    return {
        "machine": f"{platform.platform()}, {cpu}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in names},
        "python": platform.python_version(),
        "rounds": options.rounds,
    }


def measured(claims: list[Claim], rounds: int) -> list[dict[str, Any]]:
    """Each claim with its median seconds and ratio; a first round, not timed, warms the caches."""
    commands = list(dict.fromkeys(each for claim in claims for each in (claim.command, claim.over)))
    expected = {claim.command: claim.status for claim in claims}
    seconds: dict[tuple[str, ...], list[float]] = {command: [] for command in commands}
    for turn in range(rounds + 1):
        first = turn % len(commands)
        for command in commands[first:] + commands[:first]:
            spent = cpu_seconds(command, expected.get(command, 0))
            if turn:
                seconds[command].append(spent)
    return [row(claim, seconds[claim.command], seconds[claim.over]) for claim in claims]


def row(claim: Claim, own: list[float], under: list[float]) -> dict[str, Any]:
    low, median, high = np.quantile(np.divide(own, under), [0.1, 0.5, 0.9]).tolist()
    return {
        "name": claim.name,
        "median_seconds": [float(np.median(own)), float(np.median(under))],
        "ratio": {"median": median, "p10": low, "p90": high},
        "goal": claim.goal,
        "holds": claim.goal is None or median <= claim.goal,
    }


def cpu_seconds(command: tuple[str, ...], status: int) -> float:
    """CPU time of one process, less the steps of a run, which it prints last."""
    given = {**os.environ, "OMP_NUM_THREADS": "1"}
    given.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody compiles anew at each start
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen([sys.executable, *command], env=given, stdout=out, stderr=err)
        _, ended, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(ended)
        out.seek(0)
        err.seek(0)
        if child.returncode != status:
            raise RuntimeError(f"{command} ended with {child.returncode}: {err.read()}")
        steps = float(out.read().split()[-1]) if DIGITS in command else 0.0
    return usage.ru_utime + usage.ru_stime - steps


def table(result: dict[str, Any]) -> str:
    """The result for people: each ratio with its 10-90 % range, and its goal."""
    lines = [f"{name}: {result[name]}" for name in result if name != "claims"] + [""]
    for each in result["claims"]:
        own, under = (f"{1000 * s:.0f}" for s in each["median_seconds"])
        verdict = "holds" if each["holds"] else "does NOT hold"
        said = "no goal" if each["goal"] is None else f"at most {each['goal']:g}: {verdict}"
        lines.append(
            "{:50}{median:6.2f}  ({p10:.2f} to {p90:.2f})".format(each["name"], **each["ratio"])
            + f"  {own} ms over {under} ms, {said}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
