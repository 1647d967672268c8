"""A model that does not learn says so: before the first charge where it can, else after a step."""

import pytest
import torch
from refused import refused
from small_problem import make_trainer, small_model, weights
from torch import nn

from dpsgd_torch import ModelError, RunError
from dpsgd_torch.schedules import Linear


def groups(**second):
    """An optimizer whose second group, the last layer's, has settings of its own."""

    def make(parameters):
        first, last = (parameters := list(parameters))[:2], parameters[2:]
        return torch.optim.SGD([{"params": first}, {"params": last, **second}], lr=0.1)

    return make


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_rate_of_zero_is_refused_before_anything_is_charged(kind):
    refused(
        r"parameter 0\.weight, 0\.bias, 4\.weight and 1 more: .*lr = 0\).*rate_schedule",
        model=small_model(), optimizer=lambda p: kind(p, lr=0.0),
    )  # fmt: skip


def test_one_group_with_a_rate_of_zero_is_refused_by_the_names_of_its_parameters():
    refused(
        r"parameter 4\.weight, 4\.bias: a step of the optimizer does not move it",
        model=small_model(), optimizer=groups(lr=0.0),
    )  # fmt: skip


def test_a_class_of_optimizer_that_forgets_a_parameter_is_refused():
    class Forgets(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][-1].grad = None
            return super().step(closure)

    refused(r"parameter 4\.bias:", model=small_model(), optimizer=lambda p: Forgets(p, lr=0.1))


def test_parameters_replaced_after_the_optimizer_was_made_are_refused_before_a_charge():
    trainer = make_trainer()
    trainer.model[4] = nn.Linear(64, 3)
    with pytest.raises(ModelError, match=r"4\.weight, 4\.bias: trainable but not in the optimizer"):
        trainer.fit()
    assert not trainer.state.charges.are_open


def put_back(optimizer, *args):
    """A hook that undoes what a step did to the last bias."""
    with torch.no_grad():
        optimizer.param_groups[0]["params"][-1].copy_(torch.zeros(3))


def test_what_stands_still_after_a_step_ends_the_run_and_says_what_was_spent():
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model[4].bias.zero_()
    trainer.optimizer.register_step_post_hook(put_back)
    with pytest.raises(RunError, match=r"step 0: parameter 4\.bias: noise was added .*ε = ") as e:
        trainer.fit()
    assert trainer.done == 0
    assert len(trainer.ledger) == 1
    assert "weight" not in str(e.value)
    assert "tensor" not in str(e.value)


def test_a_step_that_was_wrapped_to_do_nothing_ends_the_run():
    trainer = make_trainer()
    trainer.optimizer.step = lambda closure=None: None
    with pytest.raises(RunError, match=r"0\.weight, 0\.bias, 4\.weight and 1 more: noise"):
        trainer.fit()


def test_a_warm_up_from_zero_is_looked_at_when_its_rate_is_no_longer_zero():
    schedule = Linear(0.0, 1.0, steps=20)
    trainer = make_trainer(rate_schedule=schedule).fit()
    assert trainer.done == trainer.sampling.steps
    trainer = make_trainer(rate_schedule=schedule)
    trainer.optimizer.step = lambda closure=None: None
    with pytest.raises(RunError, match=r"step 1: .*did not move"):
        trainer.fit()


def heavy(value: float) -> nn.Module:
    model = small_model()
    model[0].bias.data.fill_(value)
    return model


def test_what_is_too_large_for_its_rate_says_that_its_step_rounds_away():
    with pytest.raises(RunError, match=r"step 0: parameter 0\.bias: its values are so large"):
        make_trainer(model=heavy(1e9)).fit()


def test_what_rounds_away_early_in_a_warm_up_is_waited_for():
    schedule = Linear(1e-9, 1.0, steps=25)
    trainer = make_trainer(model=heavy(1.0), rate_schedule=schedule).fit()
    assert trainer.done == trainer.sampling.steps


def test_without_privacy_nothing_must_move():
    trainer = make_trainer(privacy=None, optimizer=groups(lr=0.0))
    before = weights(trainer.model)
    assert not torch.equal(weights(trainer.fit().model), before)
