"""``benchmarks/campaign.py``: a minute of it breaks no law, and what breaks one is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
if not (BENCHMARKS / "campaign.py").exists():  # an installed package has no benchmarks
    pytest.skip("benchmarks/campaign.py is not here", allow_module_level=True)
PLANTED = """
import sys
import {module}
{fault}
import campaign
sys.exit(campaign.main(sys.argv[1:]))
"""


def campaign(*words, planted="import sys, campaign; sys.exit(campaign.main(sys.argv[1:]))"):
    path = os.pathsep.join([str(BENCHMARKS.parent), str(BENCHMARKS)])
    return subprocess.run(
        [sys.executable, "-c", planted, *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )


@pytest.mark.long
def test_a_minute_of_the_campaign_breaks_no_law():
    done = campaign("--quick", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broke a law" in done.stdout
    for kind in ("kills digits", "damage digits any", "gestures (CSV)", "two resumes at once"):
        assert f"| {kind} |" in done.stdout


def test_a_reader_that_falls_is_told_with_the_command_that_repeats_it():
    fault = """
def fall(*_):
    raise KeyError("planted")
import dpsgd_torch.tasks.text.files as files
files._READERS = {kind: fall for kind in files._READERS}
"""
    module = "dpsgd_torch.tasks.text.files"
    done = campaign(
        "--only", "texts (CSV, JSON lines) 1", "--seed", "3",
        planted=PLANTED.format(module=module, fault=fault),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "KeyError: 'planted'" in done.stdout
    assert '--only "texts (CSV, JSON lines) 1" --seed 3' in done.stdout
