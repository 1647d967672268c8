"""Several processes of one run on this machine, each running the same script, without torchrun."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
PATIENCE = 300


def begun(script: str, size: int, *, timeout: float = 60.0, **also: str) -> list[subprocess.Popen]:
    """``size`` processes; each finds WORLD connected, and everything in tests/ importable."""
    head = (
        f"import os, sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from dpsgd_torch.training.world import World\n"
        f"world = World.of_environment({timeout})\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **also}
    return [
        subprocess.Popen(
            [sys.executable, "-c", head + script],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
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
