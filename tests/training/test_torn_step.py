"""A step that fails half way is never drawn again with the same noise in the same process."""

import re

import pytest
import torch
from small_problem import make_trainer, small_model, weights
from torch import nn

from dpsgd_torch import GuaranteeBroken, RunError
from dpsgd_torch.training.charges import Charges


class Interrupted(BaseException):
    """As a Ctrl-C would be."""


def interrupt_at(monkeypatch, step):
    honest = Charges.settle

    def settle(charges, at, *released):
        if at == step:
            raise Interrupted
        honest(charges, at, *released)

    monkeypatch.setattr(Charges, "settle", settle)


@pytest.mark.parametrize("on_disk", [False, True])
def test_after_an_interruption_the_step_is_drawn_afresh_and_paid_again(
    monkeypatch, tmp_path, on_disk
):
    undisturbed = make_trainer().fit()
    trainer = make_trainer(run_dir=tmp_path / "run" if on_disk else None)
    interrupt_at(monkeypatch, 9)
    with pytest.raises(Interrupted):
        trainer.fit()
    first = trainer.attempt
    monkeypatch.undo()
    trainer.fit()
    assert trainer.attempt == first + 1
    assert len(trainer.ledger) == 31
    spent = trainer.privacy_spent()
    assert spent.steps_charged_again == 1
    assert spent.epsilon > undisturbed.privacy_spent().epsilon


def test_a_trainer_whose_repetition_differed_releases_nothing(tmp_path):
    first = make_trainer(run_dir=tmp_path / "run")
    for at in (progress := first.run()):
        if at.step == 9:
            break
    progress.close()
    first.close()
    resumed = make_trainer(run_dir=tmp_path / "run").resume()
    resumed.data[0].add_(0.1)  # other records than the steps on record met
    with pytest.raises(GuaranteeBroken):
        resumed.fit()
    for use in (resumed.fit, resumed.privacy_spent, lambda: resumed.save(tmp_path / "out")):
        with pytest.raises(GuaranteeBroken, match="releases nothing"):
            use()
    assert not (tmp_path / "out").exists()


def noise_of(trainer):
    return tuple(trainer.streams.numpy("noise", step=5).standard_normal(5))


def test_one_seed_in_two_different_runs_shares_no_noise():
    one, two = make_trainer(), make_trainer(optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    for trainer in (one, two):
        trainer.open()
    assert noise_of(one) != noise_of(two)
    batches = [t.streams.numpy("sampling", step=5).random() for t in (one, two)]
    assert batches[0] == batches[1]


def test_one_seed_from_other_initial_weights_shares_no_noise_either():
    other = make_trainer()
    with torch.no_grad():
        next(other.model.parameters()).add_(0.1)
    one = make_trainer()
    for trainer in (one, other):
        trainer.open()
    assert noise_of(one) != noise_of(other)
    assert not torch.equal(weights(one.model), weights(other.model))


class Raises(nn.Module):
    """Raises in the first pass over more rows than any check before the first step makes."""

    def forward(self, x):
        if self.training and self.calls > 120:
            raise ValueError(f"cannot take {x}")
        self.calls += 1
        return x

    calls = 0


def test_what_the_model_raises_in_a_step_says_what_was_charged_and_prints_no_record(tmp_path):
    trainer = make_trainer(model=nn.Sequential(*small_model(), Raises()), epochs=40)
    with pytest.raises(RunError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert re.match(
        r"step \d+: model, loss or optimizer failed in layer 5 = Raises \(ValueError: cannot take "
        r"…\); the step's charge stands: ε = \d",
        message,
    )
    assert len(trainer.ledger) == trainer.done + 1
