"""The command line under torchrun itself: two processes, one run, also with the model in parts."""

import csv
import json
import os
import socket
import subprocess
import sys

import pytest

from accountant.ledger.recorded import read_events
from dpsgd_torch.train import main

PATIENCE = 300


def torchrun(*words) -> subprocess.CompletedProcess:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--master-port", str(port), "-m", "dpsgd_torch.train"]
    return subprocess.run(
        [*launch, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def charges(folder) -> list:
    return list(read_events(folder / "ledger.sqlite"))


def test_a_text_model_in_parts_is_trained_by_two_processes(tmp_path):
    texts, run = tmp_path / "messages.csv", tmp_path / "run"
    with texts.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "author"])
        for i in range(60):
            rows.writerow([f"it is {('bad', 'good')[i % 2]} {i}", ("no", "yes")[i % 2], f"a{i}"])
    words = ["--preset", "text", "--data-dir", texts, "--out", run, "--shard"]
    words += ["--max-length", "8", "--epochs", "1", "--batch-size", "8", "--delta", "1e-2"]
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((run / "config.json").read_text())["shard"] is True
    assert (run / "statement.txt").exists()
    assert len(charges(run)) >= 1


@pytest.mark.long
def test_the_long_mnist_preset_is_trained_by_two_processes(tmp_path):
    words = ["--preset", "mnist-long", "--epochs", "1", "--seed", "1"]
    done = torchrun(*words, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert charges(tmp_path / "one") == charges(tmp_path / "two")
