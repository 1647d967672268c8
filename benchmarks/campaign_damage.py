"""Each file of a run: a bit flipped, cut off, lost, or another run's; then every reader of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import campaign_runs as runs
import numpy as np
from campaign_case import Broken, Case, done, verdict

from accountant.__main__ import main as accountant
from dpsgd_torch.audit.__main__ import main as audit
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.train import main

_AT = 6  # the seventh step: a checkpoint lies before it, charges after
KINDS = "digits", "digits watched", "moa"
_HOW = "flip", "flip", "cut", "lost", "swapped"


def cases(quick: bool) -> Iterator[Case]:
    """By file and damage; the ledger, where a bit may be money, more often."""
    for kind in KINDS[:1] if quick else KINDS:
        yield Case(f"damage {kind} ledger.sqlite 0", _to_resume(kind, "ledger.sqlite", "swapped"))
        for number in range(4 if quick else 80):
            yield Case(f"damage {kind} any {number}", _to_resume(kind, None, None))
        for number in range(2 if quick else 40):
            yield Case(f"damage {kind} ledger {number}", _to_resume(kind, "ledger", "flip"))
    readers = {"accountant ledger": _priced, "audit": _audited, "export": _exported}
    for name, reader in readers.items():
        for number in range(2 if quick else 60):
            yield Case(f"damage, then {name} {number}", reader)


def damage(run: Path, other: Path, name: str | None, how: str | None, rng: np.random.Generator
           ) -> str:  # fmt: skip
    """Damage one file; what was done, in words."""
    names = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())
    if name is not None:
        names = [each for each in names if each.startswith(name)]
    name = names[int(rng.integers(len(names)))]
    how = how or str(rng.choice(_HOW))
    path, content = run / name, (run / name).read_bytes()
    if how == "lost":
        path.unlink()
    elif how == "swapped" and (other / name).exists():
        shutil.copy(other / name, path)
    elif how == "cut":
        path.write_bytes(content[: int(rng.integers(len(content) + 1))])
    elif content:
        at, bit = int(rng.integers(len(content))), int(rng.integers(8))
        if name.startswith("ledger") and rng.random() < 0.7:  # where something is written
            written = np.flatnonzero(np.frombuffer(content, np.uint8))
            at = int(rng.choice(written))
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        return f"{name}: bit {bit} of byte {at} flipped"
    return f"{name}: {how}"


def _another(kind: str) -> Path:
    return runs.cut_off(kind, _AT, noise=9.0, seed=5)


def _to_resume(kind: str, name: str | None, how: str | None) -> Callable[..., str]:
    def work(folder: Path, rng: np.random.Generator) -> str:
        began, other = runs.cut_off(kind, _AT), _another(kind)
        whole = runs.left(runs.undisturbed(kind))
        run = Path(shutil.copytree(began, folder / "run"))
        what = damage(run, other, name, how, rng)
        more = runs.words(kind)[-2:] if kind == "moa" else []
        with _told(what):
            ended = done(lambda: main(["--resume", str(run), *more]), folder)
            said = verdict(ended)
            if said == "done":
                runs.judged(runs.left(run), whole)
            return said

    return work


def _finished(folder: Path, rng: np.random.Generator, name: str | None = None) -> tuple[Path, str]:
    run = Path(shutil.copytree(runs.undisturbed("digits"), folder / "run"))
    return run, damage(run, _another("digits"), name, "flip" if name else None, rng)


def _priced(folder: Path, rng: np.random.Generator) -> str:
    run, what = _finished(folder, rng, "ledger")
    whole = runs.left(runs.undisturbed("digits")).epsilon
    words = ["ledger", str(run / "ledger.sqlite"), "--delta", str(runs.DELTA), "--json"]
    with _told(what):
        ended = done(lambda: accountant(words), folder)
        said = verdict(ended)
        if said == "done":
            epsilon = max(float(v) for k, v in json.loads(ended.said).items()
                          if k in ("epsilon", "upper"))  # fmt: skip
            if epsilon < whole * (1 - 1e-5):
                raise Broken(f"a lower ε: {epsilon}, was {whole}")
        return said


def _audited(folder: Path, rng: np.random.Generator) -> str:
    run, what = _finished(folder, rng)
    with _told(what):
        return verdict(done(lambda: audit([str(run)]), folder), also=(1,))


def _exported(folder: Path, rng: np.random.Generator) -> str:
    run, what = _finished(folder, rng)
    with _told(what):
        return verdict(done(lambda: export(["--to", "c", str(run)]), folder))


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Broken as law:
        raise Broken(f"{what}: {law}") from law
