"""How fast a run goes: told to two digits, of expected examples, by rank 0."""

import pytest
from small_problem import make_trainer

from dpsgd_torch.training import speed as module
from dpsgd_torch.training.speed import Speed
from dpsgd_torch.training.world import World


class Two(World):
    """One of two processes."""

    def __init__(self):
        super().__init__()
        self.size = 2


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_examples_a_second_are_the_expected_ones_without_the_first_step(clock):
    speed = Speed(250)
    for seconds in (30.0, 2.0, 2.0):
        clock[0] += seconds
        speed.stepped()
    assert speed.examples_per_second == 120  # 125, to two digits
    assert speed.efficiency is None


def test_efficiency_is_the_time_outside_exchanges(clock):
    world = Two()
    speed = Speed(100, world)
    speed.stepped()
    clock[0] += 4.0
    world.waited += 1.0
    speed.stepped()
    assert speed.efficiency == 0.75
    told = dict(speed.told())
    assert told["processes"] == "2"
    assert told["examples a second"] == "25"
    assert told["and process"] == "12"
    assert told["time not spent in exchanges"] == "75%"


def test_a_run_tells_it_with_each_step():
    trainer = make_trainer()
    seen = list(trainer.run())
    assert seen[0].examples_per_second is None
    assert seen[-1].examples_per_second > 0
    assert 50 < seen[-1].peak_memory < 100_000
    assert dict(trainer.state.speed.told())["processes"] == "1"
