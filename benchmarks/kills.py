"""Kill a random rank at a random moment, resume with another number of ranks, and see what it cost.

Each time a small private run of several processes on this machine is begun, SIGKILL ends one of
them, and the run is resumed by one, two or three. The law: each noise that was drawn is charged,
and a run that repeated its steps ends with the weights of one that nobody disturbed.

    python benchmarks/kills.py --kills 30

Rank, moment and number come from ``--seed``. A moment is a random time within a step's length after
so many draws of noise; some come before the first. Columns: the kill, steps charged by then, by how
many the run went on, charges in all, distance of the weights from those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.shell import in_one_line
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.world import World

RESUMED_BY = 1, 2, 3
SAME = 1e-5  # relative, of weights
_PATIENCE = 120.0  # seconds
_fork = multiprocessing.get_context("fork")  # torch is loaded once


@dataclass(frozen=True)
class Ended:
    """What a run left: the weights, each noise that was drawn, and what the ledger holds."""

    weights: torch.Tensor
    drawn: Counter[int]
    charged: Counter[int]
    attempts: int


@dataclass(frozen=True)
class Kill:
    """One kill: who, when (seconds after so many draws), by how many ranks the run goes on."""

    rank: int
    draws: int
    moment: float
    resumed_by: int


def trained(folder: Path, world: World, epochs: float) -> None:
    """One rank of a small run in ``folder``, begun or gone on with; rank 0 keeps the weights."""
    data = torch.Generator().manual_seed(1)
    inputs = torch.rand(160, 20, generator=data)
    targets = torch.randint(3, (160,), generator=data)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        (inputs, targets),
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
        batch_size=16,
        epochs=epochs,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        physical_batch_size=8,
        checkpoint_every=7,
        seed=11,
        run_dir=folder,
        world=world,
    )
    begun = RunFolder(folder).private / "contract.json"
    if world.first(begun.exists, "whether it goes on"):
        trainer.resume()
    for _ in trainer.run():
        pass
    if world.is_first:
        torch.save([p.detach() for p in model.parameters()], folder / "weights.pt")
    trainer.close()


def ranks(
    folder: Path, size: int, epochs: float, train: Callable[[Path, World, float], None] = trained
) -> list[Any]:
    """``size`` processes that train one run, begun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    made = [
        _fork.Process(target=_rank, args=(folder, {**shared, "RANK": str(rank)}, epochs, train))
        for rank in range(size)
    ]
    for process in made:
        process.start()
    return made


def statuses(processes: Iterable[Any]) -> list[int]:
    """Their exit statuses, once all have ended; −9 of one that was killed."""
    until, found = time.monotonic() + _PATIENCE, []
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            raise SystemExit(f"error: process {process.pid} was left behind")
        found.append(process.exitcode)
    return found


def left(folder: Path) -> Ended:
    """What a finished run left."""
    weights = torch.cat([p.flatten() for p in torch.load(folder / "weights.pt")])
    lines = {tuple(line.split()) for line in _log(folder).read_text().splitlines()}
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        charges = ledger.execute("SELECT step, attempt FROM charge").fetchall()
    return Ended(
        weights,
        Counter(int(step) for step, _ in lines),
        Counter(step for step, _ in charges),
        len({attempt for _, attempt in charges}),
    )


def judged(found: Ended, undisturbed: Ended) -> str:
    """``same`` weights, each step paid once; paid ``twice`` for some; or what is wrong.

    ``afresh``: another number of ranks went on with noise of its own, at a checkpoint after which
    nothing had been charged, so that nothing was paid twice.

    >>> one, two = Counter({0: 1, 1: 1}), Counter({0: 1, 1: 2})
    >>> weights, others = torch.ones(2), torch.zeros(2)
    >>> whole = Ended(weights, one, one, 1)
    >>> judged(whole, whole), judged(Ended(others, two, two, 2), whole)
    ('same', 'twice')
    >>> judged(Ended(others, two, one, 1), whole), judged(Ended(others, one, one, 1), whole)
    ('LESS', 'OTHER WEIGHTS')
    """
    if any(found.charged[step] < count for step, count in found.drawn.items()):
        return "LESS"
    if any(found.charged[step] < count for step, count in undisturbed.charged.items()):
        return "LESS"
    if found.attempts > 1:  # drawn afresh from there on
        return "twice" if found.charged.total() > undisturbed.charged.total() else "afresh"
    return "same" if distance(found, undisturbed) <= SAME else "OTHER WEIGHTS"


def distance(found: Ended, undisturbed: Ended) -> float:
    """Largest difference of weights over the largest weight."""
    apart = (found.weights - undisturbed.weights).abs().max() / undisturbed.weights.abs().max()
    return float(apart)


def kill_and_resume(folder: Path, kill: Kill, size: int, epochs: float) -> tuple[int, list[int]]:
    """Steps charged when one was killed (−1: nothing yet), and how all that were there ended."""
    processes = ranks(folder, size, epochs)
    until = time.monotonic() + _PATIENCE
    while _draws(folder) < kill.draws and any(process.is_alive() for process in processes):
        time.sleep(0.002)
        if time.monotonic() > until:
            raise SystemExit(f"error: {folder} stands still; is the machine too busy?")
    time.sleep(kill.moment)
    with contextlib.suppress(ProcessLookupError):
        os.kill(processes[kill.rank].pid, signal.SIGKILL)
    ended, at = statuses(processes), -1
    if (path := folder / "ledger.sqlite").exists():
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(path)) as held,
        ):
            at = int(held.execute("SELECT count(*) FROM charge").fetchone()[0])
    return at, [*ended, *statuses(ranks(folder, kill.resumed_by, epochs))]


def _draws(folder: Path) -> int:
    log = _log(folder)
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _rank(
    folder: Path,
    variables: dict[str, str],
    epochs: float,
    train: Callable[[Path, World, float], None],
) -> None:
    os.environ |= variables
    told = os.open(_log(folder).with_suffix(".told"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(told, 2)  # what is said of the kill
    add = IndependentGaussian.add

    def noted(self: Any, sums: Any, params: Any, release: Any) -> None:
        """Put on record which stream is drawn from, before it is."""
        told = hashlib.sha256(str(release.rng.bit_generator.state).encode()).hexdigest()
        with open(_log(folder), "a") as log:
            log.write(f"{release.plan.step} {told[:16]}\n")
        add(self, sums, params, release)

    IndependentGaussian.add = noted  # type: ignore[method-assign]

    def story() -> None:
        world = World.of_environment(60.0)
        with world.stopping_together(), world.together():
            train(folder, world, epochs)
            world.exchange("the end of a rank")

    status = in_one_line(story)
    sys.stderr.flush()
    os._exit(status)


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.drawn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=6.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(asked.seed)
    told = Counter[str]()
    with tempfile.TemporaryDirectory() as there:
        folder, started = Path(there) / "undisturbed", time.monotonic()
        statuses(ranks(folder, asked.processes, asked.epochs))
        lasted, undisturbed = time.monotonic() - started, left(folder)
        steps = undisturbed.charged.total()
        print(f"seed {asked.seed}: {asked.processes} processes, {steps} steps in {lasted:.1f} s")
        print("kill rank draws    + s charged by in all  weights  end")
        for number in range(asked.kills):
            kill = Kill(
                int(rng.integers(asked.processes)),
                int(rng.integers(-3, steps)),
                float(rng.uniform(0.0, lasted / steps)),
                int(rng.choice(RESUMED_BY)),
            )
            folder = Path(there) / f"run-{number}"
            at, ended = kill_and_resume(folder, kill, asked.processes, asked.epochs)
            found = left(folder)
            before, after = ended[: asked.processes], ended[asked.processes :]
            verdict = judged(found, undisturbed)
            if not set(before) <= {-9, 0, 2} or set(after) != {0}:
                verdict = f"ENDED BY {ended}"
            told[verdict if verdict.islower() else "WRONG"] += 1
            apart, total = distance(found, undisturbed), found.charged.total()
            print(
                f"{number:4} {kill.rank:4} {max(0, kill.draws):5} {kill.moment:6.3f} {at:7} "
                f"{kill.resumed_by:2} {total:6} {apart:8.1e}  {verdict}",
                flush=True,
            )
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(told.items())))
    return 1 if told["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
