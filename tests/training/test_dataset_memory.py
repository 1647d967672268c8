"""Memory holds batches, not the data; and the page that says so runs as it stands."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import Pictures
from torch.utils.data import Dataset

from dpsgd_torch.data import FromDataset
from dpsgd_torch.data.base import Wanted
from dpsgd_torch.data.checked import data_on

ROOT = Path(__file__).parents[2]


class Wide(Dataset):
    """Rows of 1 MiB, made when they are asked for."""

    def __len__(self):
        return 40

    def __getitem__(self, row):
        return torch.full((1 << 18,), float(row)), row


def test_a_pass_over_wide_rows_takes_few_at_once():
    sizes = [len(targets) for _, targets in data_on("cpu", Wide(), "train_tensors").batches()]
    assert sizes == [15, 15, 10]


def test_workers_are_never_more_than_two_pieces_each_ahead():
    asked = []

    def wanted():
        for start in range(0, 120, 10):
            asked.append(start)
            yield Wanted(np.arange(start, start + 10))

    batches = FromDataset(Pictures(), workers=2).ahead(wanted())
    lead = []
    for had, _ in enumerate(batches, 1):
        lead.append(len(asked) - had)
    assert max(lead) == 4
    assert len(lead) == 12


@pytest.mark.long
def test_three_gigabytes_of_images_train_in_little_memory():
    path = ROOT / "benchmarks" / "data.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_data", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.held()
    assert found["bytes"] > 3e9
    assert found["steps"] == 12
    assert 1e8 < found["peak"] < 1.2e9
    assert found["resident"] < 1.2e9


def test_the_code_of_the_page_on_datasets_runs_as_it_stands(tmp_path):
    page = (ROOT / "docs" / "datasets.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    (tmp_path / "page.py").write_text("".join(blocks))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert 2 < float(ended.stdout) <= 3
