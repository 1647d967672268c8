"""dpsgd plan: what a step costs on so many processes, by formula."""

import dataclasses
import math

import pytest

from accountant import PrivacyError
from dpsgd_torch import plan as door
from dpsgd_torch.app.cluster import LINKS, PARTS, Plan, advice, cost

SMALL = Plan(parameters=26_010, batch_size=1024, example_seconds=1e-4)
LARGE = Plan(parameters=124_000_000, batch_size=512, example_seconds=0.004)
WORDS = "--parameters 26010 --batch-size 1024 --example-seconds 1e-4"


def test_one_process_computes_and_draws_and_sends_nothing():
    found = cost(SMALL, 1)
    assert (found.messages, found.sums, found.release) == (0, 0, 0)
    assert found.compute == pytest.approx(0.1024)
    assert found.step == sum(getattr(found, part) for part in PARTS)


@pytest.mark.parametrize("plan", [SMALL, LARGE])
@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_more_processes_compute_less_and_send_no_less(plan, size):
    fewer, more = cost(plan, size - 1), cost(plan, size)
    assert more.compute < fewer.compute
    for part in ("messages", "sums", "release", "noise", "fixed"):
        assert getattr(more, part) >= getattr(fewer, part)
    assert cost(plan, 1).step / more.step < size


def test_noise_by_blocks_is_drawn_by_each_process_in_its_part():
    parts = dataclasses.replace(LARGE, noise_in_parts=True)
    assert cost(parts, 1) == cost(LARGE, 1)
    for size in (2, 8, 64):
        found, whole = cost(parts, size), cost(LARGE, size)
        assert whole.noise / size < found.noise < whole.noise / size * 1.1
        assert found.sums < whole.sums
        assert found.release < whole.release
        assert found.messages > whole.messages


def test_cores_that_are_fewer_than_processes_are_shared():
    shared = Plan(parameters=26_010, batch_size=1024, example_seconds=1e-4, cores=2)
    assert cost(shared, 4).compute == cost(shared, 2).compute == cost(SMALL, 2).compute


def test_memory_counts_what_a_process_holds():
    adam = Plan(parameters=1000, batch_size=8, example_seconds=1, optimizer="adam", frozen=500)
    assert cost(adam, 1).memory == 4 * 1500 + 1000 * (4 + 8 + 8)
    assert cost(adam, 2).memory == cost(adam, 1).memory + 8 * 1000


def test_advice_names_what_takes_longest():
    assert advice(SMALL, (1, 2)) == ""
    assert "messages" in advice(SMALL, (1, 64))
    fast = Plan(
        parameters=124_000_000, batch_size=512, example_seconds=0.004, link=LINKS["infiniband"]
    )
    assert "philox" in advice(fast, (64,))


def test_the_table_has_a_line_for_each_number_of_processes(capsys):
    assert door.main([*WORDS.split(), "--processes", "1", "2", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["1", "2", "6"]
    assert "efficiency" in lines[-4]


def test_the_whole_run_is_priced_where_it_is_told(capsys):
    assert door.main(f"{WORDS} --n 60000 --epochs 15 --epsilon 3".split()) == 0
    told = capsys.readouterr().out
    assert "879 steps with noise multiplier 1.0115 cost ε = 3" in told
    assert "whole run" in told


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--parameters 12.5", "argument --parameters: '12.5' is no whole number"),
        ("--parameters 1", "the following arguments are required: --batch-size"),
        (f"{WORDS} --n 60000", "epochs, epsilon = None: the whole run needs"),
        (f"{WORDS} --bandwidth 0", "bandwidth = 0: must be > 0"),
        (f"{WORDS} --processes 0", "processes = 0: must be ≥ 1"),
        (f"{WORDS} --batch-size 0", "batch_size = 0: must be ≥ 1"),
        (f"{WORDS} --example-seconds nan", "example_seconds = nan: must be a number"),
        (f"{WORDS} --n 10 --epochs 1 --epsilon 1", "batch_size = 1024"),
    ],
)
def test_what_is_refused_is_one_line_and_status_2(capsys, words, line):
    assert door.main(words.split()) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {line}")
    assert told.err.count("\n") == 1
    assert not told.out


def test_seconds_that_are_no_number_are_refused_in_python_too():
    with pytest.raises(PrivacyError, match="noise_seconds"):
        Plan(parameters=1, batch_size=1, example_seconds=1.0, noise_seconds=math.inf)
