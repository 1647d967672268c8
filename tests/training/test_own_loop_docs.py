"""The page on one's own loop does what it says."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "own_loop.md"


def test_each_block_of_the_page_runs_in_turn():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    found = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(block, found)
    assert found["seen"] > 0
    assert found["private"].done == 24
