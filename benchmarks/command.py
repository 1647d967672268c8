"""`python -m dpsgd_torch.train` as anyone would run it, and what its last line and epoch say."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from dpsgd_torch.train import main

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """One run: the events of its last epoch and its end, and its seconds, start included."""

    flags: tuple[str, ...]
    asked: float
    last: dict[str, Any]
    epsilon: float
    seconds: float


def run(flags: Sequence[str], epsilon: float, seed: int, *, alone: bool = False) -> Run:
    """The command with these arguments, in this process, or ``alone`` in one of its own.

    Exits where the run does not end well, or spent more than was asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        given = [*flags, "--json", "--epsilon", str(epsilon), "--seed", str(seed), "--out", out]
        started = time.monotonic()
        status, printed = _in_its_own(given) if alone else _here(given)
        seconds = time.monotonic() - started
    if status:
        sys.exit(status)  # the run has said why on stderr
    events = [json.loads(line) for line in printed.splitlines()]
    spent = events[-1]["privacy"]["epsilon"]
    if spent > epsilon:
        sys.exit(f"{' '.join(flags)}: spent ε = {spent}, above {epsilon}")
    last = [event for event in events if event["event"] == "epoch"][-1]
    return Run(tuple(flags), epsilon, last, spent, seconds)


def _in_its_own(given: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "dpsgd_torch.train", *given]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def _here(given: Sequence[str]) -> tuple[int, str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(given)
    return status, printed.getvalue()


def runs(flags: Sequence[str], epsilons: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """One of each ε and seed.

    The first two are processes of their own, whose seconds a user would see: the first makes what
    is kept, the second reads it. The others are calls of the command's main in this process.
    """
    asked = [(epsilon, seed) for seed in seeds for epsilon in epsilons]
    found = []
    for at, (epsilon, seed) in enumerate(asked):
        found.append(run(flags, epsilon, seed, alone=at < 2))
        said = {name: found[-1].last.get(name) for name in ("test_accuracy", "test_loss")}
        words = f"{' '.join(flags)} --epsilon {epsilon:g} --seed {seed}: {said}"
        print(words, f"{found[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def spread(values: Sequence[float], form: str) -> str:
    """Median (least–most)."""
    least, middle, most = (format(of(values), form) for of in (min, median, max))
    return f"{middle} ({least}–{most})"


def seconds(found: Sequence[Run]) -> str:
    """Of a whole process: the first, and the second, which reads what the first kept."""
    return f"{found[0].seconds:.0f}, then {found[min(1, len(found) - 1)].seconds:.0f}"


def conditions(seeds: Sequence[int]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    return (
        f"Median (least–most) over seeds {', '.join(map(str, seeds))}; {platform.platform()}, "
        f"{os.cpu_count()} cores; {versions}."
    )
