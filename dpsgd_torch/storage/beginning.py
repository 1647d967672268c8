"""A run's first moment, before anything can be charged: marked, so that it may be begun again.

A ledger that is not there says nothing: it may never have been made, or have been lost with what it
held. The mark says it: put there before the first file of a run and taken away once its ledger is
on disk, it stands for as long as nothing was charged.

* Whoever begins a run holds a lock on its mark; the lock goes with the process, the mark stays.
* A folder with a mark that nobody holds, and with no file besides those of a beginning and no
  charge in its ledger, is as good as an empty one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

MARK = "private/beginning"
_FILES = {
    "config.json",
    "ledger.sqlite",
    "ledger.sqlite-journal",
    "ledger.sqlite-shm",
    "ledger.sqlite-wal",
    "private/contract.json",
    "private/plan.json",
    "private/streams.json",
}
_FIRST_CHECKPOINT = {
    "private/checkpoints/step-00000000",
    "private/checkpoints/.step-00000000.partial",
}
_FOLDERS = {"private", "private/checkpoints", *_FIRST_CHECKPOINT}
_held: dict[Path, int] = {}


def claim(path: Path) -> bool:
    """Mark a new, empty or merely begun folder as one in which a run begins; False if it is taken.

    What an earlier beginning left is cleared away.
    """
    mark = path / MARK
    fresh = not mark.exists()
    if fresh and files(path):
        return False
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if fresh else 0)
    try:
        handle = os.open(mark, flags, 0o600)
    except FileExistsError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.fstat(handle).st_nlink > 0 and _only_begun(path)
    except OSError:
        free = False
    if not free:
        if fresh:
            mark.unlink()
        os.close(handle)
        return False
    _held[path.resolve()] = handle
    try:
        _clear(path)
        os.fsync(handle)
        for folder in (mark.parent, path, path.parent):
            sync_folder(folder)
    except BaseException:
        let_go(path)
        raise
    return True


def unmark(path: Path) -> None:
    """Take the mark away, durably: from here on charges may be in the ledger."""
    sync_folder(path)
    (path / MARK).unlink()
    sync_folder(path / "private")


def let_go(path: Path) -> None:
    """Let others begin there, where the mark still stands."""
    os.close(_held.pop(path.resolve()))


def is_begun_only(path: Path) -> bool:
    """Whether a run was stopped there before anything could be charged."""
    mark = path / MARK
    if path.resolve() in _held or not mark.is_file() or mark.is_symlink():
        return False
    handle = os.open(mark, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return _only_begun(path)


def files(path: Path) -> list[str]:
    """What is in a folder besides the empty ones that a run begins with."""
    found = []
    for each in path.rglob("*"):
        name = each.relative_to(path).as_posix()
        if each.is_symlink() or not each.is_dir() or name not in _FOLDERS:
            found.append(name)
    return found


def _only_begun(path: Path) -> bool:
    for name in files(path):
        known = name.removesuffix(".partial") in _FILES or name == MARK
        known |= name.rpartition("/")[0] in _FIRST_CHECKPOINT
        if not known or not (path / name).is_file() or (path / name).is_symlink():
            return False
    return _charges(path / "ledger.sqlite") == 0


def _charges(ledger: Path) -> int:
    """How many a ledger holds; one that has no tables yet holds none, one that cannot be read 1."""
    if not ledger.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(ledger, timeout=0.1)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            if ("charge",) not in tables:
                return 0
            return int(connection.execute("SELECT COUNT(*) FROM charge").fetchone()[0])
    except sqlite3.Error:
        return 1


def _clear(path: Path) -> None:
    shutil.rmtree(path / "private" / "checkpoints", ignore_errors=True)
    for name in files(path):
        if name != MARK:
            (path / name).unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make renames inside ``path`` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
