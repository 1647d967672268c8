"""Random kills of random ranks, as ``benchmarks/kills.py`` makes them: a few, in a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.parametrize("seed", [2])
def test_a_killed_run_repeats_or_pays_and_never_less(seed):
    done = subprocess.run(
        [sys.executable, str(KILLS), "--kills", "3", "--seed", str(seed), "--epochs", "3"],
        env={**os.environ, "PYTHONPATH": str(KILLS.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, summary = done.stdout.splitlines()
    assert len(lines) == 2 + 3
    assert "WRONG" not in summary
    assert all(line.split()[-1] in ("same", "twice", "afresh") for line in lines[2:])
