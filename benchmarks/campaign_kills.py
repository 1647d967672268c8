"""SIGKILL at random moments, again and again in one run: the same weights, or paid twice."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import campaign_runs as runs
import kills
import numpy as np
from campaign_case import Broken, Case, done, verdict

KINDS = "digits", "digits watched", "digits secure", "gesture", "moa", "own loop"
_RANKS, _EPOCHS = 2, 3.0


def cases(quick: bool) -> Iterator[Case]:
    """Runs of each kind, each killed several times; and of two processes, one of which is."""
    kinds = ("digits", "own loop") if quick else KINDS
    for kind in kinds:
        for number in range(1 if quick else 5):
            yield Case(f"kills {kind} {number}", _several(kind, 2 if quick else 5))
    for number in range(1 if quick else 12):
        yield Case(f"kills two processes {number}", _of_ranks)


def _several(kind: str, most: int) -> Callable[[Path, np.random.Generator], str]:
    def work(folder: Path, rng: np.random.Generator) -> str:
        whole, lasted, run, made = (
            runs.left(runs.undisturbed(kind)), runs.lasted(kind), folder / "run", 0,
        )  # fmt: skip
        for _ in range(most):
            moment = float(rng.uniform(0.0, lasted))
            ended = done(lambda: runs.story(kind, run), folder, kill_after=moment)
            if not ended.is_killed:
                verdict(ended)
                break
            made += 1
        ended = done(lambda: runs.story(kind, run), folder)
        if verdict(ended) == "refused":
            raise Broken(f"does not go on: {ended.lines[-1]}")
        found = runs.left(run)
        if kind == runs.SECURE:  # charges alone can be compared
            same = dataclasses.replace(found.ended, weights=whole.ended.weights)
            found = dataclasses.replace(found, ended=same, model=whole.model)
        return f"{runs.judged(found, whole)} after {made}"

    return work


def _of_ranks(folder: Path, rng: np.random.Generator) -> str:
    def make(run: Path) -> None:
        kills.statuses(kills.ranks(run, _RANKS, _EPOCHS))
        log = run.with_name(f"{run.name}.drawn")
        log.rename(log.with_name(log.name.replace(".partial", "")))

    whole = kills.left(runs.shared("ranks", make))
    steps = whole.charged.total()
    kill = kills.Kill(
        int(rng.integers(_RANKS)),
        int(rng.integers(-3, steps)),
        float(rng.uniform(0.0, 0.05)),
        int(rng.choice(kills.RESUMED_BY)),
    )
    run = folder / "run"
    _, ended = kills.kill_and_resume(run, kill, _RANKS, _EPOCHS)
    if not set(ended[:_RANKS]) <= {-9, 0, 2} or set(ended[_RANKS:]) != {0}:
        raise Broken(f"ended by {ended}")
    said = kills.judged(kills.left(run), whole)
    if not said.islower():
        raise Broken(said)
    shutil.rmtree(run)
    return f"{said} after 1"
