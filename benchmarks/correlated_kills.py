"""Kill a run with correlated noise at random moments, resume it each time, and see what it cost.

SIGKILL ends a small private run; it is resumed, killed again, and so on until it is done. The law:
it ends with the weights of a run that nobody disturbed, bit for bit; every noise that was drawn was
charged before; and all is paid once, whatever was paid in advance.

    python benchmarks/correlated_kills.py --kills 50

Takes some 2 s a kill. Columns: the sampler, kills, steps that were drawn again, charges, attempts,
and whether weights and charges are those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.noise.correlated import Correlated
from dpsgd_torch.samplers.cyclic import cyclic
from dpsgd_torch.samplers.passes import Passes

SAMPLERS: dict[str, Callable[..., Any]] = {"cyclic": cyclic(8), "passes": Passes}
_fork = multiprocessing.get_context("fork")  # torch is loaded once


def trained(folder: Path, sampler: str, epochs: float) -> None:
    """A small run in ``folder``, begun or gone on with; the weights are kept at its end."""
    data = torch.Generator().manual_seed(1)
    inputs = torch.rand(160, 20, generator=data)
    targets = torch.randint(3, (160,), generator=data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        (inputs, targets),
        privacy=Privacy(
            noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, noise=Correlated("bandmf", 8)
        ),
        batch_size=16,
        epochs=epochs,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        sampler=SAMPLERS[sampler],
        physical_batch_size=8,
        checkpoint_every=3,
        seed=11,
        run_dir=folder,
    )
    if (folder / "private" / "contract.json").exists():
        trainer.resume()
    trainer.fit()
    torch.save([p.detach() for p in model.parameters()], folder / "weights.pt")
    trainer.close()


def begun(folder: Path, sampler: str, epochs: float) -> Any:
    """The run in a process of its own."""
    process = _fork.Process(target=_noted, args=(folder, sampler, epochs))
    process.start()
    return process


def disturbed(folder: Path, sampler: str, epochs: float, kills: int, rng: Any) -> int:
    """Kill and resume so often, then let it end; returns how many kills found it running."""
    found = 0
    for _ in range(kills):
        process, drawn, more = begun(folder, sampler, epochs), _draws(folder), rng.integers(0, 6)
        while process.is_alive() and _draws(folder) < drawn + more:
            time.sleep(0.0005)
        time.sleep(float(rng.exponential(0.004)))
        found += process.is_alive()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            break  # it had ended before
        if process.exitcode != -signal.SIGKILL:
            raise SystemExit(f"error: {folder} ended with status {process.exitcode}")
    process = begun(folder, sampler, epochs)
    process.join()
    if process.exitcode:
        raise SystemExit(f"error: {folder} ended with status {process.exitcode}")
    return found


def left(folder: Path) -> tuple[torch.Tensor, list[tuple[Any, ...]], Counter[int]]:
    """Weights, charges as (step, attempt, event), and how many noises were drawn for each step."""
    weights = torch.cat([p.flatten() for p in torch.load(folder / "weights.pt")])
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        rows = ledger.execute(
            "SELECT step, attempt, json FROM charge JOIN event ON event.id = charge.event "
            "ORDER BY attempt, step"
        ).fetchall()
    lines = {tuple(line.split()) for line in _log(folder).read_text().splitlines()}
    return weights, rows, Counter(int(step) for step, _ in lines)


def judged(folder: Path, whole: Path) -> str:
    """``same``, or what is wrong."""
    weights, rows, drawn = left(folder)
    expected, paid, _ = left(whole)
    charged = Counter(step for step, *_ in rows)
    if any(charged[step] < count for step, count in drawn.items()):
        return "LESS"
    if rows != paid:
        return "OTHER CHARGES"
    return "same" if torch.equal(weights, expected) else "OTHER WEIGHTS"


def _log(folder: Path) -> Path:
    return folder.with_suffix(".drawn")


def _draws(folder: Path) -> int:
    log = _log(folder)
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _noted(folder: Path, sampler: str, epochs: float) -> None:
    """Train, and put on record which noise meets which past, before it is drawn."""
    torch.set_num_threads(1)
    add = Correlated.add

    def noted(self: Any, sums: Any, params: Any, release: Any) -> None:
        told = hashlib.sha256(str(release.rng.bit_generator.state).encode())
        for name in sorted(release.state):
            told.update(release.state[name].numpy().tobytes())
        with open(_log(folder), "a") as log:
            log.write(f"{release.plan.step} {told.hexdigest()[:16]}\n")
        add(self, sums, params, release)

    Correlated.add = noted  # type: ignore[method-assign]
    trained(folder, sampler, epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--sampling", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--epochs", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, share = np.random.default_rng(args.seed), -(-args.kills // len(args.sampling))
    with tempfile.TemporaryDirectory() as name:
        for sampler in args.sampling:
            whole, cut = Path(name) / f"{sampler}-whole", Path(name) / f"{sampler}-cut"
            begun(whole, sampler, args.epochs).join()
            kills, again, rounds = 0, 0, 0
            while kills < share and rounds < args.kills:
                folder = cut.with_name(f"{cut.name}-{rounds}")
                kills += disturbed(folder, sampler, args.epochs, share - kills, rng)
                verdict = judged(folder, whole)
                _, rows, drawn = left(folder)
                again += _draws(folder) - len(drawn)
                rounds += 1
                if verdict != "same":
                    break
            attempts = len({row[1] for row in rows})
            print(f"{sampler:8} {kills:3} kills {again:4} drawn again "
                  f"{len(rows)} charges {attempts} attempt {verdict}")  # fmt: skip


if __name__ == "__main__":
    main()
