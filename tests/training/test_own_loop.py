"""A loop of one's own is the trainer's run: the same weights, the same ledger, bit for bit."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from many_processes import alone
from own_loops import losses_of, make_private, trained
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from dpsgd_torch import GuaranteeBroken, Privacy

DRIVER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from own_loops import losses_of, make_private
torch.set_num_threads({threads})
private = make_private(run_dir={run!r})
for batch in private:
    if private.done == {step} and not batch.rehearsal:
        os.kill(os.getpid(), signal.SIGKILL)
    private.backward(losses_of(private.model, batch))
    private.step()
"""


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.body = small_model()

    def forward(self, image, shift):
        return self.body(image) + shift


def named_data():
    inputs, targets = small_data()
    return {"image": inputs, "shift": inputs.mean((1, 2, 3))[:, None]}, targets


BY_PERSON = {
    "units": np.repeat(np.arange(40), 3),
    "rows_per_unit": 2,
    "privacy": Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5, unit="person"),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"physical_batch_size": "auto"},
        {"model": Named, "data": named_data},
        BY_PERSON,
        {"privacy": Privacy(noise_multiplier=1.2, delta=1e-3, clip_norm=0.5, microbatch_size=3)},
        {"batch_size": 2, "epochs": 0.5},
    ],
    ids=["pair", "auto size", "named inputs", "units", "microbatches", "empty batches"],
)
def test_the_loop_gives_the_trainers_weights_and_ledger_bit_for_bit(changes):
    def made():
        return {key: value() if callable(value) else value for key, value in changes.items()}

    trainer, private = make_trainer(**made()).fit(), trained(make_private(**made()))
    assert torch.equal(weights(private.model), weights(trainer.model))
    assert private.ledger.events() == trainer.ledger.events()
    assert private.privacy_spent() == trainer.privacy_spent()
    assert private.history == trainer.history
    assert private.physical_batch_size == trainer.physical_batch_size


def test_a_killed_loop_goes_on_as_if_nothing_had_happened(tmp_path):
    script = DRIVER.format(
        tests=str(Path(__file__).parents[1]),
        threads=torch.get_num_threads(),
        run=str(tmp_path / "run"),
        step=12,
    )
    status, _, told = alone(script)
    assert status == -signal.SIGKILL, told
    undisturbed = make_trainer().fit()
    resumed = trained(make_private(run_dir=tmp_path / "run", seed=None).resume())
    assert torch.equal(weights(resumed.model), weights(undisturbed.model))
    assert resumed.ledger.events() == undisturbed.ledger.events()


def test_a_loop_that_was_left_between_batches_goes_on_at_no_further_cost(tmp_path):
    left = trained(make_private(run_dir=tmp_path / "run"), steps=17)
    assert left.done == 17
    left.close()
    resumed = trained(make_private(run_dir=tmp_path / "run").resume())
    undisturbed = make_trainer().fit()
    assert torch.equal(weights(resumed.model), weights(undisturbed.model))
    again = trained(make_private(), steps=9)
    trained(again)  # in the same process, without a folder
    assert torch.equal(weights(again.model), weights(undisturbed.model))
    assert len(again.ledger) == 30


def test_parts_of_a_batch_say_what_they_are():
    private, steps, rows, parts = make_private(), [], 0, 0
    looked_back = set()
    for batch in private:
        if batch.rehearsal and private.state.torn:
            looked_back.add(batch.step)
        if not batch.rehearsal:
            assert len(batch.inputs) == len(batch.targets) <= 5
            assert torch.equal(batch.inputs, small_data()[0][batch.indices])
            assert batch.epoch == 1 + batch.step // 10
            rows, parts = rows + len(batch.indices), parts + 1
        private.backward(losses_of(private.model, batch))
        if done := private.step():
            steps.append(batch.step)
        assert done == batch.is_last
    assert steps == list(range(30))
    assert looked_back == {0, 10, 20}  # an epoch's first step
    assert parts > 60
    assert rows == sum(row["examples_seen"] for row in private.history.private)


class Gated(nn.Module):
    """A part of it is for rows that no rehearsal meets."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.usual, self.rare = nn.Linear(200, 3), nn.Linear(200, 3)

    def forward(self, x):
        return self.usual(x) + (x[:, 3:4] == 0.5) * self.rare(x)


def gated_data():
    inputs = torch.rand(120, 200, generator=torch.Generator().manual_seed(4))
    inputs[77, 3] = 0.5
    return inputs, small_data()[1]


def test_where_the_engine_looks_closer_the_loop_is_asked_again_and_counts_once():
    private, rows, asked = make_private(model=Gated(), data=gated_data()), [], []
    for batch in private:
        if not batch.rehearsal:
            rows.append(batch.indices)
        elif private.state.torn:
            asked.append(batch)
        private.backward(losses_of(private.model, batch))
        private.step()
    trainer = make_trainer(model=Gated(), data=gated_data()).fit()
    assert asked
    assert not any(len(batch.indices) for batch in asked)
    seen = sum(row["examples_seen"] for row in private.history.private)
    assert sum(map(len, rows)) == seen
    assert torch.equal(weights(private.model), weights(trainer.model))


def test_an_optimizer_is_its_owners_again_after_the_loop():
    private = trained(make_private(), steps=3)
    private.optimizer.step()
    with pytest.raises(GuaranteeBroken, match="changed after 3 steps"):
        trained(private)


def test_a_batch_of_nobody_has_a_stand_in_that_counts_for_nothing():
    seen = []
    private = make_private(batch_size=1, epochs=0.1)
    for batch in private:
        if batch.stands_in:
            seen.append(batch.step)
            private.backward(1e6 * losses_of(private.model, batch))
        else:
            private.backward(losses_of(private.model, batch))
        private.step()
    assert seen
    assert torch.equal(
        weights(private.model), weights(trained(make_private(batch_size=1, epochs=0.1)).model)
    )


def test_the_callers_randomness_is_untouched_and_the_model_stays_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    private = trained(make_private(), steps=2)
    assert torch.equal(torch.rand(2), expected)
    assert not [p for p in private.model.parameters() if hasattr(p, "grad_sample")]


def test_without_a_named_loss_two_loops_share_no_noise():
    def noise(losses):
        private = trained(make_private(loss=None), steps=1, losses=losses)
        return private.state.streams.context

    twice = lambda model, batch: 2 * losses_of(model, batch)  # noqa: E731
    assert noise(losses_of) == noise(losses_of)
    assert noise(losses_of) != noise(twice)


def test_a_budget_ends_the_loop_and_says_why():
    budget = Privacy(epsilon=2.0, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    private = trained(make_private(privacy=budget))
    assert 0 < private.done < 30
    assert private.epsilon() <= 2.0
    assert "would reach" in private.stopped
    with pytest.warns(UserWarning, match=r"nothing was trained: step \d+ would reach"):
        trained(private)
    whole = trained(make_private())
    with pytest.warns(UserWarning, match="nothing was trained: all 30 steps are done"):
        trained(whole)


def test_what_was_trained_is_saved_with_what_it_cost(tmp_path):
    private = trained(make_private())
    folder = private.save(tmp_path / "mine")
    assert {"model.safetensors", "privacy.json"} <= set(os.listdir(folder))


def test_a_loop_that_is_ended_by_what_was_seen_costs_all_that_was_planned():
    private, whole = make_private(), trained(make_private())
    trained(private, steps=4)
    taken = private.epsilon()
    private.end_early("the score no longer rose")
    assert private.privacy_spent().watched
    assert taken < private.epsilon() == whole.epsilon()
    assert trained(private).done == 30  # it goes on all the same
    assert not private.privacy_spent().watched
    assert private.epsilon() == whole.epsilon()
