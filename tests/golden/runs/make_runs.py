"""Make the two run folders beside this file: ``OMP_NUM_THREADS=1 python make_runs.py FOLDER``.

One run of the digits finished, and the same one killed in the middle of step 16, after its last
checkpoint, as a power cut would.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

FLAGS = ["--preset", "digits", "--epochs", "2", "--noise-multiplier", "3", "--seed", "1"]
FLAGS += ["--checkpoint-every", "5"]
KILLED = f"""
import os, signal
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.train import main

add_noise, calls = PrivateOptimizer.add_noise, []

def die(self, *given, **named):
    calls.append(1)
    if len(calls) == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return add_noise(self, *given, **named)

PrivateOptimizer.add_noise = die
main({[*FLAGS, "--out", "interrupted"]!r})
"""


def main(folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dpsgd_torch.train", *FLAGS, "--out", "finished"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    ended = subprocess.run([sys.executable, "-c", KILLED], cwd=folder, env=environment)
    assert ended.returncode == -signal.SIGKILL
    for name in ("report.html", "private/gradient-norms.svg"):
        (folder / "finished" / name).unlink()  # large, and nothing reads them again
    with contextlib.closing(sqlite3.connect(folder / "interrupted" / "ledger.sqlite")) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log beside it is large too


if __name__ == "__main__":
    main(Path(sys.argv[1]))
