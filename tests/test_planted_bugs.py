"""Each privacy bug of the list, planted into a run: found, by the check that is named for it."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "benchmarks" / "planted.py"
if not PATH.exists():  # an installed package has no benchmarks
    pytest.skip("benchmarks/planted.py is not here", allow_module_level=True)
SPEC = importlib.util.spec_from_file_location("planted", PATH)
planted = importlib.util.module_from_spec(SPEC)
sys.modules["planted"] = planted
SPEC.loader.exec_module(planted)

BY = {
    "sums of sensitivity 2C": ("largest_change", "one record moves the sum by no more"),
    "noise × ⅔": ("replay", "noise has the deviation that is charged"),
    "shuffled, priced as Poisson": ("replay", "batches are as large as Poisson samples"),
    "one record in every batch": ("replay", "every record joins at the same rate"),
    "noise reused": ("replay", "no noise is used twice"),
    "clip after averaging": ("canaries", "a record moves the sum by the clip norm"),
    "a batch repeated in the model": ("before the first charge", "changes with another example"),
    "sampling seed shared by ranks": ("replay", "records join independently of one another"),
    "noise seed shared by shards": ("replay", "every value's noise is its own"),
    "no noise on empty batches": ("canaries", "noise has the deviation that is charged"),
    "batch norm": ("before the first charge", "batch statistics mix examples"),
    "a buffer without noise": ("before the first charge", "buffer mean: changes in a forward"),
    "a parameter without noise": ("before the first charge", "changes in a forward pass"),
    "divided by the realised batch": ("canaries", "noise has the deviation that is charged"),
    "divided by int(n·q)": ("canaries", "noise has the deviation that is charged"),
}


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.name)
def test_a_planted_bug_is_found_by_the_check_that_is_named_for_it(fault):
    where, words = BY[fault.name]
    found = planted.found_in(fault)
    assert any(each.where == where and words in each.words for each in found), found


def test_every_planted_bug_has_its_check():
    assert BY.keys() == {fault.name for fault in planted.FAULTS}


@pytest.mark.parametrize("seed", [3, 4])
def test_an_honest_run_is_not_accused_by_any_of_them(seed):
    assert planted.found_in(planted.HONEST, seed) == []
