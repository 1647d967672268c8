"""Several processes of one run on this machine, each running the same script, without torchrun."""

import atexit
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent
PATIENCE = 300
PATHS = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])


@functools.cache
def server() -> socket.socket:
    """The door of this process's fork_server.py, which ends with it."""
    door, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with inner:
        started = subprocess.Popen(
            [sys.executable, str(TESTS / "fork_server.py"), str(inner.fileno())],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS},
            pass_fds=[inner.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
    atexit.register(started.wait)
    atexit.register(door.close)  # before: last in, first out
    return door


class Forked:
    """A script in a process that the server forked; asked as a subprocess.Popen is."""

    def __init__(self, script: str, environment: dict[str, str], folder: str = "") -> None:
        self.returncode: int | None = None
        self._streams, inner = zip(os.pipe(), os.pipe(), strict=True)
        asked = {"script": script, "environment": environment, "folder": folder or os.getcwd()}
        socket.send_fds(server(), [json.dumps(asked).encode()], inner)
        for stream in inner:
            os.close(stream)
        self.pid = int(server().recv(64))

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Stdout and stderr, once the script has ended."""
        until, found = time.monotonic() + timeout, dict.fromkeys(self._streams, b"")
        with selectors.DefaultSelector() as open_ones:
            for stream in self._streams:
                open_ones.register(stream, selectors.EVENT_READ)
            while open_ones.get_map():
                ready = open_ones.select(until - time.monotonic())
                if not ready and time.monotonic() > until:
                    raise subprocess.TimeoutExpired("a forked script", timeout)
                for key, _ in ready:
                    more = os.read(key.fd, 1 << 16)
                    found[key.fd] += more
                    if not more:
                        open_ones.unregister(key.fd)
        out, err = (found[stream].decode() for stream in self._streams)
        self._wait()
        return out, err

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> None:
        server().send(json.dumps({"wait": self.pid}).encode())
        self.returncode = int(server().recv(64))
        for stream in self._streams:
            os.close(stream)


def begun(script: str, size: int, *, timeout: float = 60.0, fresh: bool = False) -> list[Forked]:
    """``size`` processes; each finds WORLD connected, and everything in tests/ importable.

    ``fresh``: each an interpreter of its own, with its own hash seed, not a fork of one.
    """
    head = (
        f"import os, sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from dpsgd_torch.training.world import World\n"
        f"world = World.of_environment({timeout})\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    start = started if fresh else Forked
    return [start(head + script, {**os.environ, **shared, **rank}) for rank in ranks]


def started(script: str, environment: dict[str, str]) -> subprocess.Popen:
    """A script in an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alone(script: str) -> tuple[int, str, str]:
    """What one forked process ends with, and says, that is no rank of anything."""
    (found,) = ended([Forked(script, {**os.environ, "OMP_NUM_THREADS": "1"})])
    return found


def ended(processes: list[Forked]) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each, once all have ended; none is left behind."""
    try:
        found = [(p, *p.communicate(timeout=PATIENCE)) for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out, err) for process, out, err in found]


def run(script: str, size: int, **also) -> list[str]:
    """What each process printed; all must have ended well."""
    found = ended(begun(script, size, **also))
    assert all(status == 0 for status, _, _ in found), found
    return [out for _, out, _ in found]
