"""The page on arrays and tables: every block runs, one after the other, as a reader would."""

import re
from pathlib import Path

import datasets
import pytest

from dpsgd_torch import ModelError

PAGE = Path(__file__).parents[2] / "docs" / "data_tables.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    told = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), told)
    careless, loss, labels = told["Careless"](), told["nn"].CrossEntropyLoss(), told["data"]
    with pytest.raises(ModelError, match="changes with how far it is padded"):
        told["train"](careless, loss, labels)
