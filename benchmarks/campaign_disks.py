"""Full disks, two resumes at once, and a ledger copied back from an earlier time."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import campaign_runs as runs
import numpy as np
from campaign_case import Broken, Case, begun, done, ended, verdict

_Work = Callable[[Path, np.random.Generator], str]
_LARGEST = 400 << 10  # bytes; a finished run of the digits holds some 250 KB


def cases(quick: bool) -> Iterator[Case]:
    """A small file system of its own where root runs it; a limit of each file's size anywhere."""
    for number in range(1 if quick else 12):
        for kind in ("digits",) if quick else ("digits", "own loop"):
            yield Case(f"full disk {kind} {number}", _full(kind, _small_disk))
            yield Case(f"file too large {kind} {number}", _full(kind, _no_disk))
    for number in range(1 if quick else 6):
        yield Case(f"two resumes at once {number}", _two_resumes)
        yield Case(f"two begin at once {number}", _two_begin)
    for number in range(2 if quick else 20):
        yield Case(f"ledger copied back {number}", _copied_back)


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        raise PermissionError
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def _no_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir()
    yield


def _full(kind: str, disk: Callable[..., contextlib.AbstractContextManager[None]]) -> _Work:
    def work(folder: Path, rng: np.random.Generator) -> str:
        whole = runs.left(runs.undisturbed(kind))
        own, small = disk is _no_disk, folder / "disk"
        size = int(rng.integers(4 << 10, (100 << 10) if own else _LARGEST))
        try:
            with disk(small, size):
                run = small / "run"
                first = done(
                    lambda: runs.story(kind, run), folder, file_bytes=size if own else None
                )
                said = verdict(first)
                log = small / "run.drawn"
                later = (
                    Path(shutil.copytree(run, folder / "run")) if run.exists() else folder / "run"
                )
                if log.exists():
                    shutil.copy(log, folder / "run.drawn")
        except PermissionError:
            return "not root"
        charged = 0
        if later.exists():  # in a copy: reading it takes its log away
            charged = len(runs.charges(Path(shutil.copytree(later, folder / "read"))))
        if said == "done":
            return f"{runs.judged(runs.left(later), whole)}: there was room"
        second = done(lambda: runs.story(kind, later), folder)
        if verdict(second) != "done":
            raise Broken(f"{size} bytes: does not go on: {second.lines[-1]}")
        return f"refused {'after' if charged else 'before'} charges, then " + runs.judged(
            runs.left(later), whole
        )

    return work


def _two_resumes(folder: Path, rng: np.random.Generator) -> str:
    run = Path(shutil.copytree(runs.cut_off("digits", 6), folder / "run"))
    return _both(folder, run, rng)


def _two_begin(folder: Path, rng: np.random.Generator) -> str:
    return _both(folder, folder / "run", rng)


def _both(folder: Path, run: Path, rng: np.random.Generator) -> str:
    def late() -> int:
        return runs.story("digits", run)

    one = begun(late, folder)
    time.sleep(float(rng.uniform(0.0, 0.3)))
    two = begun(late, folder)
    said = sorted(verdict(ended(each)) for each in (one, two))
    if "done" not in said:
        raise Broken("neither went on")
    runs.judged(runs.left(run), runs.left(runs.undisturbed("digits")))
    return " and ".join(said)


def _copied_back(folder: Path, rng: np.random.Generator) -> str:
    """The ledger of one moment in the folder of a later one: refused, or the same draws again."""
    whole = runs.left(runs.undisturbed("digits"))
    at, later = sorted(int(x) for x in rng.choice(np.arange(1, 20), 2, replace=False))
    old = runs.cut_off("digits", at)
    run = Path(shutil.copytree(runs.cut_off("digits", later), folder / "run"))
    for path in run.glob("ledger.sqlite*"):
        path.unlink()
    for path in old.glob("ledger.sqlite*"):
        shutil.copy(path, run)
    checkpoint = max(int(p.name[5:]) for p in (run / "private" / "checkpoints").glob("step-*"))
    said = verdict(done(lambda: runs.story("digits", run), folder))
    if said == "refused":
        return said
    if at + 1 < checkpoint:
        raise Broken(f"step {at} in a run of step {later}: not seen")
    return f"no checkpoint since: {runs.judged(runs.left(run), whole)}"
