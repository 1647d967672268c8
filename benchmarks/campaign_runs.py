"""The runs that the campaign disturbs: how each is begun, gone on with, and read afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kills
import torch
from campaign_case import Broken, done
from safetensors.torch import load_file
from torch import nn

from dpsgd_torch import Privacy, Private
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.shell import in_one_line
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.drug_responses.files import write_responses
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.train import main
from dpsgd_torch.training.charges import Charges

DELTA = 1e-5
_DIGITS = ["--preset", "digits", "--epochs", "3", "--checkpoint-every", "5", "--seed", "4"]
_WATCHED = ["--batch-size", "256", "--validation", "private", "--keep-best", "--plateau", "1"]
_GESTURE = ["--preset", "gesture", "--epochs", "8", "--checkpoint-every", "4", "--seed", "4"]
_MOA = [
    "--preset", "moa", "--epochs", "2", "--batch-size", "64", "--hidden", "16", "--seed", "4",
    "--statistics-epsilon", "0.5", "--frequencies-epsilon", "0.3", "--select-features", "50",
    "--selection-epsilon", "0.4", "--validation", "private", "--validation-bound", "0.5",
    "--checkpoint-every", "4",
]  # fmt: skip
SECURE = "digits secure"
WORDS = {
    "digits": _DIGITS,
    "digits watched": [*_DIGITS, *_WATCHED],
    SECURE: [*_DIGITS[:-2], "--secure"],  # its key is drawn: no two have the same weights
    "gesture": _GESTURE,
    "moa": _MOA,
}
SHARED: list[Path] = []  # where what all cases need is made once


def shared(name: str, make: Callable[[Path], Any]) -> Path:
    """A folder that is made at the first call."""
    folder = SHARED[0] / name
    if not folder.exists():
        partial = folder.with_name(f"{name}.partial")
        make(partial)
        partial.rename(folder)
    return folder


def words(kind: str) -> list[str]:
    """The flags of a run of the application."""
    if kind != "moa":
        return WORDS[kind]

    def make(folder: Path) -> None:
        folder.mkdir()
        write_responses(folder, *synthetic_responses(300, 120, 6))

    return [*WORDS[kind], "--data-dir", str(shared("responses", make))]


def story(kind: str, run: Path, *, noise: float | None = None, seed: int | None = None) -> int:
    """Begin the run, or go on with it where it was charged; exit status."""
    _note_draws(run)
    if kind == "own loop":
        return in_one_line(lambda: _own_loop(run))
    if not RunFolder(run).is_free:
        more = words(kind)[-2:] if kind == "moa" else []
        return main(["--resume", str(run), *more])
    flags = [*words(kind)]
    if seed is not None:
        flags[flags.index("--seed") + 1] = str(seed)
    if noise is not None:
        flags += ["--noise-multiplier", str(noise)]
    return main([*flags, "--out", str(run)])


def _own_loop(run: Path) -> None:
    data = torch.Generator().manual_seed(1)
    inputs = torch.rand(300, 20, generator=data)
    targets = torch.randint(3, (300,), generator=data)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    private = Private(
        model,
        torch.optim.Adam(model.parameters(), lr=0.01),
        (inputs, targets),
        privacy=Privacy(noise_multiplier=1.0, delta=DELTA, clip_norm=0.5),
        batch_size=16,
        epochs=12,
        checkpoint_every=7,
        seed=11,
        run_dir=run,
    )
    if not RunFolder(run).is_free:
        private.resume()
    for batch in private:
        outputs = model(batch.inputs)
        private.backward(nn.functional.cross_entropy(outputs, batch.targets, reduction="none"))
        private.step()
    private.save(run)


def _note_draws(run: Path) -> None:
    """Put on record which noise is drawn, before it is; in a process that ends with the story."""
    log, add = run.with_name(f"{run.name}.drawn"), IndependentGaussian.add

    def noted(self: Any, sums: Any, params: Any, release: Any) -> None:
        made = getattr(release.rng, "bit_generator", None)
        told = hashlib.sha256(str(made.state).encode()).hexdigest() if made else "secure"
        with open(log, "a") as file:
            file.write(f"{release.plan.step} {told[:16]}\n")
        add(self, sums, params, release)

    IndependentGaussian.add = noted  # type: ignore[method-assign]


@dataclass(frozen=True)
class Left:
    """What a run left, as ``kills.judged`` reads it, and its weights and ε to the last digit."""

    ended: kills.Ended
    model: bytes
    epsilon: float


def left(run: Path) -> Left:
    """Read a finished run."""
    model = (run / "model.safetensors").read_bytes()
    weights = torch.cat(
        [t.flatten().float() for t in load_file(run / "model.safetensors").values()]
    )
    log = run.with_name(f"{run.name}.drawn")
    drawn = {tuple(line.split()) for line in log.read_text().splitlines()} if log.exists() else ()
    rows = charges(run)
    return Left(
        kills.Ended(
            weights,
            Counter(int(step) for step, _ in drawn),
            Counter(step if part == "training" else (part, step) for part, step, _ in rows),
            len({attempt for _, _, attempt in rows}),
        ),
        model,
        float(json.loads((run / "privacy.json").read_text())["epsilon"]),
    )


def charges(run: Path) -> list[tuple[str, int, int]]:
    """(part, step, attempt) of each charge in the ledger; none where there is no ledger yet."""
    path = run / "ledger.sqlite"
    if not path.exists():
        return []
    with (
        contextlib.suppress(sqlite3.OperationalError),  # no tables yet
        contextlib.closing(sqlite3.connect(path)) as ledger,
    ):
        return ledger.execute("SELECT part, step, attempt FROM charge").fetchall()
    return []


def judged(found: Left, whole: Left) -> str:
    """``same``, ``afresh`` or ``twice``, as ``kills.judged`` says; anything else breaks a law."""
    said = kills.judged(found.ended, whole.ended)
    if not said.islower():
        raise Broken(f"{said}: {found.ended.charged.total()} charges, "
                     f"{whole.ended.charged.total()} undisturbed")  # fmt: skip
    if found.epsilon < whole.epsilon * (1 - 1e-9):
        raise Broken(f"ε = {found.epsilon}, undisturbed {whole.epsilon}")
    if said == "same" and found.model != whole.model:
        raise Broken("the weights differ in their last digits")
    return said


def undisturbed(kind: str) -> Path:
    """A run of this kind that nobody disturbed."""

    def make(run: Path) -> None:
        ended = done(lambda: story(kind, run), SHARED[0])
        if ended.status:
            raise SystemExit(f"error: {kind}, undisturbed: {ended.status} {ended.lines}")
        with contextlib.suppress(FileNotFoundError):
            run.with_name(f"{run.name}.drawn").rename(
                run.with_name(f"{run.name.removesuffix('.partial')}.drawn")
            )
        (SHARED[0] / f"{kind}.seconds").write_text(str(ended.seconds))

    return shared(f"{kind} undisturbed", make)


def lasted(kind: str) -> float:
    """Seconds of the undisturbed run."""
    undisturbed(kind)
    return float((SHARED[0] / f"{kind}.seconds").read_text())


def cut_off(kind: str, at: int, *, noise: float | None = None, seed: int | None = None) -> Path:
    """A run whose power was cut as step ``at`` was settled: its log is beside its ledger."""

    def make(run: Path) -> None:
        def cut() -> int:
            settle = Charges.settle

            def settled(self: Any, step: int, *rest: Any) -> None:
                settle(self, step, *rest)
                if step == at and len(charges_of(self)) > at:
                    os.kill(os.getpid(), signal.SIGKILL)

            Charges.settle = settled  # type: ignore[method-assign]
            return story(kind, run, noise=noise, seed=seed)

        ended = done(cut, SHARED[0])
        if not ended.is_killed:
            raise SystemExit(f"error: {kind} was not cut off: {ended.status} {ended.lines}")

    return shared(f"{kind} cut off at {at}, {noise}, {seed}", make)


def charges_of(held: Charges) -> list[int]:
    """One entry a charge."""
    return [1] * len(held.ledger)
