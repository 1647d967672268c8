"""Noise by blocks over ranks: each draws its own part, once, and all of it is one process's."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from many_processes import run
from noise_in_parts import PLANTED, drawn, fitted, weights_of

from dpsgd_torch import Privacy
from dpsgd_torch.noise.blocks import BLOCK, BLOCKS
from dpsgd_torch.training.noise_by_parts import draws_in_parts, places_between
from dpsgd_torch.training.world import ALONE

SCRIPT = """
import json, torch
from noise_in_parts import PLANTED, caught, drawn, fitted, keys, parts, weights_of
torch.save(drawn(world), f"{FOLDER}/noise {world.rank}")
trained = fitted(world)
torch.save(weights_of(trained), f"{FOLDER}/weights {world.rank}")
said = {"spent": [trained.privacy_spent().epsilon, trained.ledger.rows()["charge"]]}
if world.size == 2:
    said["parts"] = parts(world)
    said["keys"] = keys(world)
    said["planted"] = {name: caught(name, world) for name in PLANTED}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def over(tmp_path_factory):
    """What each of 2 ranks, and of 3, said and left: {size: (said, noise, weights)}."""
    found = {}
    for size in (2, 3):
        folder = tmp_path_factory.mktemp("ranks")
        said = [json.loads(out) for out in run(f"FOLDER = {str(folder)!r}\n" + SCRIPT, size)]
        left = [
            [torch.load(folder / f"{kind} {rank}") for rank in range(size)]
            for kind in ("noise", "weights")
        ]
        found[size] = (said, *left)
    return found


def fits(values: np.ndarray, deviation: float) -> bool:
    """Whether the mean square is within 5 of its standard errors of the deviation's square."""
    error = deviation**2 * math.sqrt(2 / len(values))
    return bool(abs(np.mean(values**2) - deviation**2) < 5 * error)


@pytest.mark.filterwarnings("ignore:local, not covered by ε")
def test_noise_in_parts_is_that_of_one_process(over):
    alone = drawn(ALONE)
    for _, noise, _ in over.values():
        assert all(torch.equal(alone, each) for each in noise)


@pytest.mark.parametrize("size", [2, 3])
def test_each_part_has_the_planned_deviation_and_is_no_others(over, size):
    whole = over[size][1][0].numpy()
    parts = np.array_split(whole, size)
    for part in (whole, *parts):
        assert fits(part, 1.0)
        assert not fits(part, 2 / 3)
        assert not fits(part, 3 / 2)
        assert not fits(part / math.sqrt(2), 1.0)
        assert not fits(part * math.sqrt(2), 1.0)
    for one, other in itertools.pairwise(parts):
        length = min(len(one), len(other))
        assert abs(np.corrcoef(one[:length], other[:length])[0, 1]) < 5 / math.sqrt(length)


def test_each_rank_draws_a_part_and_none_all(over):
    assert [said["parts"] for said in over[2][0]] == [[40_001], [40_001]]


@pytest.mark.parametrize("name", PLANTED)
def test_planted_noise_is_caught_on_every_rank(over, name):
    for said in over[2][0]:
        kind, message, moved, charges = said["planted"][name]
        assert kind == PLANTED[name], message
        assert "the step's charge stands" in message
        assert (moved, charges) == (0.0, 1)  # nothing was released, and it is paid for


@pytest.mark.parametrize("size", [2, 3])
def test_the_answer_and_the_ledger_are_those_of_one_process(over, size):
    alone = fitted(ALONE)
    expected = weights_of(alone)
    said, _, found = over[size]
    assert all(torch.equal(found[0], other) for other in found)
    assert (found[0] - expected).abs().max() < 1e-6 * expected.abs().max()
    for each in said:
        epsilon, rows = each["spent"]
        assert epsilon == alone.privacy_spent().epsilon
        assert [r[:5] for r in rows] == [list(r[:5]) for r in alone.ledger.rows()["charge"]]


def test_noise_keyed_by_the_sums_is_keyed_by_those_of_all_ranks(over):
    (first, again, other), others = (said["keys"] for said in over[2][0])
    assert [first, again, other] == others  # both ranks draw by one key
    assert first == again
    assert len(set(first)) == len(first) == 5
    assert not set(first) & set(other)  # where the sums of another rank alone differ


def test_what_lies_in_a_range_is_all_of_it_once():
    sizes = [BLOCK + 5, 0, 17, 1, 3 * BLOCK]
    count = sum(sizes)
    for ranks in (1, 2, 3, 5):
        part = -(-count // ranks)
        cuts = [min(rank * part, count) for rank in range(ranks + 1)]
        seen = [np.zeros(size) for size in sizes]
        for start, stop in itertools.pairwise(cuts):
            for place in places_between(start, stop, sizes):
                seen[place.parameter][place.start : place.stop] += 1
        assert all((each == 1).all() for each in seen)


def test_one_process_draws_all_by_itself():
    assert not draws_in_parts(BLOCKS, 10**9, ALONE)


def test_a_run_says_by_what_its_noise_is_drawn():
    asked = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1.0, noise=BLOCKS)
    assert asked.to_json()["noise"] == {"noise": "independent, by blocks"}
