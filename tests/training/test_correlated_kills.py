"""Runs with correlated noise that are killed and resumed: as ``benchmarks/correlated_kills.py``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[2] / "benchmarks" / "correlated_kills.py"


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_weights_and_pays_once():
    kills, samplings = 50, ["cyclic", "passes"]
    told = ["--kills", str(kills), "--epochs", "12"]
    done = subprocess.run(
        [sys.executable, str(KILLS), *told, "--sampling", *samplings],
        env={**os.environ, "PYTHONPATH": str(KILLS.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == samplings
    assert [line[-1] for line in lines] == ["same"] * len(samplings)
    assert sum(int(line[1]) for line in lines) >= kills
