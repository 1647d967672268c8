"""physical_batch_size="auto": what fits a fixed budget, on every machine and when resumed."""

import pytest
import torch
from small_problem import make_trainer, small_data, weights
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import ModelError
from dpsgd_torch.training import physical_size, rehearse
from dpsgd_torch.training.physical_size import fitting
from dpsgd_torch.training.private_optimizer import sums_are_long

WIDE = 4096
KIB = 1 << 10


def wide(**more):
    """Whose example takes 16 KiB and more after its first layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, WIDE), nn.Tanh(), nn.Linear(WIDE, 3))
    return make_trainer(model=model, physical_batch_size="auto", **more)


def test_a_step_is_one_pass_where_memory_allows():
    assert make_trainer(physical_batch_size="auto").physical_batch_size == 32  # 12 + 4 √12 rows
    assert make_trainer(physical_batch_size=7).physical_batch_size == 7


def test_auto_trains_to_the_weights_of_the_number_that_it_picks():
    picked = make_trainer(physical_batch_size="auto").fit()
    given = make_trainer(physical_batch_size=32).fit()
    assert torch.equal(weights(picked.model), weights(given.model))


@pytest.mark.parametrize(("gradients", "budget"), [("auto", 800), ("opacus", 8000), ("graph", 800)])
def test_a_smaller_budget_holds_fewer_examples(monkeypatch, gradients, budget):
    found = []
    for kib in (budget, budget // 2):
        monkeypatch.setattr(physical_size, "BUDGET", kib * KIB)
        trainer = wide(gradients=gradients)
        found.append(trainer.physical_batch_size)
        assert trainer.fit().done == trainer.sampling.steps
    assert found[0] == 2 * found[1]
    assert found[1] < 32


def test_an_example_counts_what_its_pass_saves_and_what_is_kept_of_it(monkeypatch):
    seen = []
    monkeypatch.setattr(rehearse, "fitting", lambda example, **_: seen.append(example) or 4)
    for gradients in ("graph", "opacus"):
        wide(gradients=gradients)
    activations, parameters = 4 * WIDE, 4 * (36 * WIDE + WIDE + 3 * WIDE + 3)
    assert 2 * activations <= seen[0] <= 6 * activations
    assert parameters + activations <= seen[1] <= parameters + 6 * activations


def test_less_free_memory_lowers_it_and_too_little_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(rehearse, "free_memory", lambda device: 400 * KIB)
    assert 1 <= wide().physical_batch_size < 32
    monkeypatch.setattr(rehearse, "free_memory", lambda device: KIB)
    with pytest.raises(ModelError, match=r"physical_batch_size = auto: 1 at once need") as caught:
        wide()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("example", [1, 10**3, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("batch_size", [1, 250, 10**6])
def test_it_is_a_power_of_two_whose_sums_are_not_too_long(example, batch_size):
    rows = 2 * batch_size + 4
    size = fitting(example, rows=rows, batch_size=batch_size)
    assert size & (size - 1) == 0
    assert 1 <= size < 2 * rows
    assert not sums_are_long(batch_size, size)
    fits = size * example <= physical_size.BUDGET
    assert fits or size == 1 or sums_are_long(batch_size, size // 2)
    assert size >= rows or 2 * size * example > physical_size.BUDGET or batch_size == 10**6


def test_a_resumed_run_keeps_the_number_that_another_machine_picked(monkeypatch, tmp_path):
    monkeypatch.setattr(physical_size, "BUDGET", 400 * KIB)
    whole = wide(run_dir=tmp_path / "whole").fit()
    trainer = wide(run_dir=tmp_path / "run")
    assert trainer.physical_batch_size < 32
    for progress in trainer.run():
        if progress.step == 9:
            break
    trainer.close()
    monkeypatch.setattr(physical_size, "BUDGET", 1 << 30)
    again = wide(run_dir=tmp_path / "run")
    assert again.physical_batch_size == 32
    again.resume().fit()
    assert again.physical_batch_size == whole.physical_batch_size
    assert torch.equal(weights(again.model), weights(whole.model))


def test_without_privacy_nothing_is_rehearsed():
    trainer = make_trainer(physical_batch_size="auto", privacy=None)
    assert trainer.physical_batch_size == physical_size.WITHOUT_PRIVACY


@pytest.mark.parametrize("size", [0, -1, "all"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(InvalidValue, match=r"physical_batch_size = .*must be ≥ 1, or 'auto'"):
        make_trainer(physical_batch_size=size, data=small_data(20))


@pytest.mark.parametrize(
    ("most", "held", "cached", "left"),
    [("1000", "600", 100, 500), ("max", "600", 0, None), ("100", "900", 0, 0)],
)
def test_a_containers_limit_is_read(tmp_path, most, held, cached, left):
    (tmp_path / "memory.max").write_text(f"{most}\n")
    (tmp_path / "memory.current").write_text(f"{held}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    assert physical_size._of_group(tmp_path) == left
