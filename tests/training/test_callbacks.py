"""Callbacks are told of steps and epochs, see what ε covers, and cannot harm a run."""

import pytest
import torch
from small_problem import make_trainer, small_data, weights

from accountant import InvalidValue
from dpsgd_torch import GuaranteeBroken, RunError
from dpsgd_torch.training.callbacks import Callback


class Listening(Callback):
    def __init__(self, heard=None):
        self.heard = [] if heard is None else heard

    def on_begin(self, trainer):
        self.heard.append(("begin", trainer.done))

    def on_step(self, trainer, progress):
        self.heard.append(("step", progress.step))
        assert trainer.done == progress.step
        assert trainer.ledger.events()  # which holds the step

    def on_epoch(self, trainer, record):
        self.heard.append(("epoch", record.epoch, record.epsilon, record.test.get("loss")))

    def on_end(self, trainer):
        self.heard.append(("end", trainer.done))


def named(heard, name):
    return [what[1] for what in heard if what[0] == name]


def test_it_is_told_of_each_step_and_epoch_in_order():
    first, second = Listening(), Callback()
    trainer = make_trainer(test_tensors=small_data(30), callbacks=[first, second]).fit()
    heard = first.heard
    assert named(heard, "step") == list(range(1, 31))
    assert named(heard, "epoch") == [1, 2, 3]
    assert heard.index(("step", 10)) + 1 == [what[0] for what in heard].index("epoch")
    assert (heard[0], heard[-1]) == (("begin", 0), ("end", 30))
    assert [what[2:] for what in heard if what[0] == "epoch"] == [
        (record.epsilon, record.test.get("loss")) for record in trainer.history.epochs
    ]
    assert trainer.history.epochs[-1].epsilon == pytest.approx(trainer.privacy_spent().epsilon)


def test_nothing_changes_by_its_listening():
    plain, heard = make_trainer().fit(), make_trainer(callbacks=[Callback()]).fit()
    assert torch.equal(weights(plain.model), weights(heard.model))
    assert plain.ledger.events() == heard.ledger.events()


class Failing(Listening):
    def __init__(self, what, after):
        super().__init__()
        self.what, self.after = what, after

    def on_begin(self, trainer):
        super().on_begin(trainer)
        self.fail("begin", trainer)

    def on_step(self, trainer, progress):
        super().on_step(trainer, progress)
        self.fail("step", trainer)

    def on_end(self, trainer):
        super().on_end(trainer)
        self.fail("end", trainer)

    def fail(self, what, trainer):
        if (what, trainer.done) == (self.what, self.after):
            self.after = -1
            raise OSError("disk is full")


def test_where_it_raises_the_next_fit_goes_on_with_the_next_step():
    failing, other = Failing("step", 13), Listening()
    trainer = make_trainer(callbacks=[failing, other], test_tensors=small_data(30))
    move = r"callback Failing: on_step failed after step 13 \(OSError: disk is full\); fit\(\) goes"
    with pytest.raises(RunError, match=move):
        trainer.fit()
    assert trainer.done == 13
    assert other.heard[-1] == ("end", 13)
    trainer.fit()
    assert named(other.heard, "step") == [*range(1, 13), *range(14, 31)]
    whole = make_trainer().fit()
    assert torch.equal(weights(trainer.model), weights(whole.model))
    assert trainer.ledger.events() == whole.ledger.events()


@pytest.mark.parametrize("after", [7, 10, 13])
def test_a_run_in_a_folder_is_resumed_after_it_raised(after, tmp_path):
    trainer = make_trainer(callbacks=[Failing("step", after)], run_dir=tmp_path / "run")
    with pytest.raises(RunError, match="disk is full"):
        trainer.fit()
    trainer.close()
    again = make_trainer(run_dir=tmp_path / "run").resume().fit()
    whole = make_trainer().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.ledger.epsilon() == whole.ledger.epsilon()


def test_one_that_fails_at_the_beginning_has_cost_nothing(tmp_path):
    trainer = make_trainer(callbacks=[Failing("begin", 0)], run_dir=tmp_path / "run")
    with pytest.raises(RunError, match="on_begin failed after step 0"):
        trainer.fit()
    assert not (tmp_path / "run").exists()
    assert trainer.fit().done == 30


def test_one_that_fails_at_the_end_leaves_the_others_their_end():
    failing, others = Failing("end", 30), [Listening(), Listening()]
    trainer = make_trainer(callbacks=[others[0], failing, others[1]], test_tensors=small_data(9))
    with pytest.raises(RunError, match=r"on_end failed after step 30 \(OSError: disk is full\)$"):
        trainer.fit()
    assert [other.heard[-1] for other in others] == [("end", 30)] * 2
    assert trainer.privacy_spent().steps == 30


def test_whoever_leaves_the_loop_ends_it_for_callbacks_too():
    listening = Listening()
    trainer = make_trainer(callbacks=[listening], test_tensors=small_data(9))
    for at in trainer.run():
        if at.step == 4:
            break
    assert listening.heard[-1] == ("end", 4)


@pytest.mark.parametrize("after", [5, 10, 30])
def test_one_that_writes_to_the_weights_ends_the_run_and_nothing_is_released(after, tmp_path):
    class Averaging(Callback):
        def on_step(self, trainer, progress):
            if progress.step == after:
                with torch.no_grad():
                    trainer.model[0].weight.mul_(0.5)

    trainer = make_trainer(callbacks=[Averaging()])
    with pytest.raises(GuaranteeBroken, match=r"0\.weight: changed after"):
        trainer.fit()
    with pytest.raises(GuaranteeBroken):
        trainer.save(tmp_path / "kept")


def test_what_is_no_callback_is_refused():
    with pytest.raises(InvalidValue, match=r"callbacks = .*must be instances of"):
        make_trainer(callbacks=[print])
