"""Rates that schedulers of torch set, or a hand: they hold, go on in place, or are refused."""

import pytest
import torch
from own_loops import losses_of, make_private, trained
from small_problem import make_trainer, sgd, small_data, small_model, weights
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.optim.swa_utils import AveragedModel

from dpsgd_torch import EarlyStopping, ModelError, RunError, Validation
from dpsgd_torch.schedules import Linear


def rate(run):
    return run.optimizer.param_groups[0]["lr"]


def halved(optimizer):
    return StepLR(optimizer, 10, gamma=0.5)


KINDS = {
    "stairs": halved,
    "milestones": lambda optimizer: MultiStepLR(optimizer, [5, 20], gamma=0.1),
    "warm-up from 0": lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, step / 10)),
    "one cycle": lambda optimizer: OneCycleLR(optimizer, 0.4, 31),
    "in turn": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer, 0.1, 4), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        [4],
    ),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_scheduler_of_torchs_sets_the_rates_and_goes_on_in_place(kind, tmp_path):
    model = small_model()
    alone = sgd(model.parameters())
    expected, scheduler = [], kind(alone)
    for _ in range(30):
        expected.append(alone.param_groups[0]["lr"])
        alone.step()
        scheduler.step()
    whole, seen = make_trainer(lr_scheduler=kind), []
    for at in whole.run():
        seen.append((at.step, rate(whole)))
    assert [found for _, found in seen][:-1] == pytest.approx(expected[1:])
    part = make_trainer(lr_scheduler=kind, run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 17:
            break
    part.close()
    again = make_trainer(lr_scheduler=kind, run_dir=tmp_path / "part").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.optimizer.param_groups[0]["lr"] == rate(whole)
    assert not torch.equal(weights(whole.model), weights(make_trainer().fit().model))


def test_a_scheduler_on_the_optimizer_is_no_longer_written_over():
    model = small_model()
    optimizer = sgd(model.parameters())
    scheduler = halved(optimizer)
    trainer = make_trainer(model=model, optimizer=optimizer)
    for _ in trainer.run():
        scheduler.step()
    assert rate(trainer) == 0.2 / 8
    assert not torch.equal(weights(trainer.model), weights(make_trainer().fit().model))


def test_a_rate_set_by_hand_holds():
    trainer = make_trainer()
    trainer.optimizer.param_groups[0]["lr"] = 0.05
    for at in trainer.run():
        if at.step == 10:
            trainer.optimizer.param_groups[0]["lr"] = 0.01
    assert rate(trainer) == 0.01


@pytest.mark.parametrize(
    "steered",
    [
        {"rate_schedule": Linear(1.0, 0.5, 30)},
        {
            "validation": Validation(tensors=small_data(40, seed=9), public=True),
            "early_stopping": EarlyStopping(plateau=1),
        },
    ],
    ids=["rate_schedule", "plateau"],
)
def test_two_who_steer_the_rates_are_refused_before_the_next_charge(steered):
    trainer = make_trainer(**steered)

    def by_hand():
        for at in trainer.run():
            if at.step == 5:
                trainer.optimizer.param_groups[0]["lr"] = 0.01

    with pytest.raises(RunError, match=r"lr = 0\.01: was 0\.\d+ as rate_schedule or a plateau"):
        by_hand()
    assert len(trainer.ledger) == trainer.done == 5


def test_a_rate_that_is_set_before_the_first_step_is_what_a_schedule_multiplies():
    trainer = make_trainer(rate_schedule=Linear(1.0, 0.5, 30))
    trainer.optimizer.param_groups[0]["lr"] = 0.1
    assert rate(trainer.fit()) == pytest.approx(0.05)


def test_what_follows_a_score_is_refused():
    with pytest.raises(ModelError, match=r"ReduceLROnPlateau: follows a score.*early_stopping"):
        make_trainer(lr_scheduler=ReduceLROnPlateau)
    private = make_private()
    with pytest.raises(ModelError, match="ReduceLROnPlateau: follows a score"):
        private.keep(scheduler=ReduceLROnPlateau(private.optimizer))


def test_a_scheduler_of_another_optimizer_or_beside_a_schedule_is_refused():
    other = halved(sgd(small_model().parameters()))
    with pytest.raises(ModelError, match="over another optimizer than the trainer's"):
        make_trainer(lr_scheduler=other)
    with pytest.raises(ModelError, match="rate_schedule steers the rates as well"):
        make_trainer(lr_scheduler=halved, rate_schedule=Linear(1.0, 0.5, 30))
    with pytest.raises(ModelError, match="lr_scheduler = SGD: must be an LRScheduler"):
        make_trainer(lr_scheduler=lambda optimizer: optimizer)


def scheduled_loop(private, steps=None):
    scheduler = halved(private.optimizer)
    private.keep(scheduler=scheduler)
    return scheduler


def with_scheduler(private, scheduler, steps=None):
    for batch in private:
        private.backward(losses_of(private.model, batch))
        if private.step():
            scheduler.step()
            if private.done == steps:
                break
    return private


def test_in_a_loop_the_scheduler_is_ones_own_and_goes_on_in_place(tmp_path):
    whole = make_private(loss=None)
    with_scheduler(whole, scheduled_loop(whole))
    assert rate(whole) == 0.2 / 8
    part = make_private(loss=None, run_dir=tmp_path / "part")
    with_scheduler(part, scheduled_loop(part), steps=17)
    part.close()
    again = make_private(loss=None, run_dir=tmp_path / "part")
    scheduler = scheduled_loop(again)
    again.resume()
    assert scheduler.last_epoch == 14
    with_scheduler(again, scheduler)
    assert torch.equal(weights(again.model), weights(whole.model))


def test_a_scheduler_that_no_checkpoint_keeps_is_refused_where_there_are_some(tmp_path):
    private = make_private(run_dir=tmp_path / "run")
    halved(private.optimizer)
    with pytest.raises(RunError, match=r"that no checkpoint keeps.*keep\(scheduler=scheduler\)"):
        trained(private)
    assert not private.state.charges.are_open
    free = make_private()
    with_scheduler(free, halved(free.optimizer))
    assert free.done == 30


def test_what_was_kept_must_be_kept_again(tmp_path):
    part = make_private(run_dir=tmp_path / "part")
    part.keep(average=AveragedModel(part.model))
    trained(part, steps=8)
    part.close()
    with pytest.raises(RunError, match="average: the run keeps its state and it does not"):
        make_private(run_dir=tmp_path / "part").resume()


def test_what_fits_in_no_checkpoint_is_not_kept():
    private = make_private()
    with pytest.raises(ModelError, match="thing = object: must have state_dict"):
        private.keep(thing=object())

    class Odd:
        def state_dict(self):
            return {"lock": {1, 2}}

        def load_state_dict(self, state):
            raise AssertionError

    with pytest.raises(ModelError, match=r"thing.lock = set: fits in no checkpoint"):
        private.keep(thing=Odd())
    trained(private, steps=1)
    with pytest.raises(RunError, match="keep: late: comes before the loop"):
        private.keep(late=small_model())
