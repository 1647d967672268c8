"""One case of the campaign: what is done, in a process of its own, and the laws it is held to."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_LONGEST = 1000  # characters of a refusal
CPU_SECONDS = 300
WALL_SECONDS = 900
_PROGRESS = re.compile(r"warning: |\d+ of \d+ models trained")


class Broken(Exception):
    """A law was broken; the message says which, and how."""


@dataclass(frozen=True)
class Case:
    """``work`` takes a folder and a stream of random numbers and returns a verdict, or raises."""

    name: str
    work: Callable[[Path, np.random.Generator], str]

    def stream(self, seed: int) -> np.random.Generator:
        """The case's own: the same whichever others run."""
        return np.random.default_rng([seed, zlib.crc32(self.name.encode())])

    @property
    def kind(self) -> str:
        """The first words of the name: a row of the table."""
        return self.name.rpartition(" ")[0]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    lines: list[str]  # of stderr
    seconds: float
    said: str = ""

    @property
    def is_killed(self) -> bool:
        return self.status == -signal.SIGKILL


def begun(
    story: Callable[[], Any], folder: Path, *, file_bytes: int | None = None
) -> tuple[int, Path, float]:
    """A process that is on its way: its id, where it speaks, when it began."""
    log = folder / f"said-{time.monotonic_ns()}"
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forked beside torch's threads, as kills.py does
        pid = os.fork()
    if pid == 0:
        _child(story, log, file_bytes)
    return pid, log, time.monotonic()


def _child(story: Callable[[], Any], log: Path, file_bytes: int | None) -> None:
    status = 70
    with contextlib.suppress(BaseException):
        os.setsid()
        for name, number in ((".out", 1), (".err", 2)):
            handle = os.open(log.with_suffix(name), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(handle, number)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
        try:
            status = int(story() or 0)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def ended(process: tuple[int, Path, float], kill_after: float | None = None) -> Ended:
    """Wait for it, or kill it that many seconds after it began."""
    pid, log, began = process
    while True:
        found, raw = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - began
        if found:
            break
        if kill_after is not None and seconds >= kill_after:
            os.kill(pid, signal.SIGKILL)
            kill_after = None
        if seconds > WALL_SECONDS:
            os.killpg(pid, signal.SIGKILL)  # its children too
            os.waitpid(pid, 0)
            raise Broken(f"stands still after {seconds:.0f} s")
        time.sleep(0.002)
    err = log.with_suffix(".err")
    lines = err.read_text(errors="replace").splitlines() if err.exists() else []
    out = log.with_suffix(".out")
    said = out.read_text(errors="replace") if out.exists() else ""
    for each in (err, out):
        each.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(raw), lines, seconds, said)


def done(
    story: Callable[[], Any],
    folder: Path,
    *,
    kill_after: float | None = None,
    file_bytes: int | None = None,
) -> Ended:
    """A story in a process of its own, to its end."""
    return ended(begun(story, folder, file_bytes=file_bytes), kill_after)


def verdict(found: Ended, *, also: tuple[int, ...] = ()) -> str:
    """``done`` or ``refused``: anything else breaks the law of one line.

    >>> verdict(Ended(2, ["warning: so", "error: x = 1: must be 2"], 0.1))
    'refused'
    >>> verdict(Ended(2, ["error: one", "error: two"], 0.1))
    Traceback (most recent call last):
    campaign_case.Broken: not refused in one line: error: one | error: two
    """
    lines = [line for line in found.lines if not _PROGRESS.match(line)]
    if any(line.startswith("Traceback") for line in lines):
        where = [line.strip() for line in lines if "dpsgd_torch/" in line or "accountant/" in line]
        raise Broken(f"traceback: {lines[-1][:200]} [{where[-1] if where else ''}]")
    if found.status == 2:
        if len(lines) != 1 or not lines[0].startswith("error: "):
            raise Broken(f"not refused in one line: {' | '.join(lines)[:300]}")
        if len(lines[0]) > _LONGEST:
            raise Broken(f"a refusal of {len(lines[0])} characters: {lines[0][:200]}")
        return "refused"
    if found.status in (0, *also):
        return "done" if found.status == 0 else f"status {found.status}"
    raise Broken(f"status {found.status}: {' | '.join(lines[-3:])[:300]}")
