"""What a resumed run draws and reads again; what no checkpoint holds is refused before a charge."""

import random

import numpy as np
import pytest
import torch
from refused import Made, refused
from small_problem import make_trainer, small_model, weights


def scaled_by(draw):
    return Made(lambda model, x: model.layer(x) * draw())


def coin():
    return 1 + random.randint(0, 1)


def stretched():
    return 1 + np.random.rand()


def resumed(folder, make):
    """The weights of a run that was interrupted, where the caller's generators stood elsewhere."""
    random.seed(1)
    np.random.seed(1)
    part = make(run_dir=folder)
    for at in part.run():
        if at.step == 10:
            break
    part.close()
    random.seed(2)
    np.random.seed(2)
    return weights(make(run_dir=folder).resume().fit().model)


@pytest.mark.parametrize("draw", [coin, stretched])
def test_a_model_that_draws_from_a_global_generator_draws_the_same_when_resumed(draw, tmp_path):
    def make(**settings):
        torch.manual_seed(0)
        return make_trainer(model=scaled_by(draw), epochs=2, **settings)

    assert torch.equal(resumed(tmp_path / "run", make), weights(make().fit().model))


def test_each_step_draws_anew_and_the_callers_generators_stay_where_they_were():
    drawn = []

    def both():
        drawn.append((random.random(), np.random.rand()))
        return 1.0

    trainer = make_trainer(model=scaled_by(both), physical_batch_size=200)
    drawn.clear()
    states = random.getstate(), np.random.get_state()[1].tolist()
    trainer.fit()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert len(drawn) == len(set(drawn)) == 30
    again = make_trainer(model=scaled_by(both), physical_batch_size=200, seed=12)
    first = drawn.copy()
    drawn.clear()
    again.fit()
    assert not set(first) & set(drawn)


class Keeping(torch.optim.SGD):
    """Leaves something beside the tensors in its state, or in its groups."""

    def __init__(self, params, what, where="state"):
        super().__init__(params, lr=0.1)
        self.what, self.where = what, where

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                held = self.state[p] if self.where == "state" else group
                held["kept"] = self.what
        return super().step(closure)


@pytest.mark.parametrize(
    ("what", "where", "match"),
    [
        ({1, 2}, "state", "state of parameter 0: kept = set: no checkpoint can hold it"),
        ({"a": torch.ones(2)}, "state", "state of parameter 0: kept = dict: no checkpoint"),
        (torch.ones(2), "group", "group 0: kept = Tensor: no checkpoint"),
        (torch.eye(2).to_sparse(), "state", "state of parameter 0: kept = Tensor: no checkpoint"),
    ],
)
def test_an_optimizer_whose_state_no_checkpoint_holds_is_refused(what, where, match, tmp_path):
    settings = {"model": small_model(), "optimizer": lambda p: Keeping(p, what, where)}
    message = refused(match, run_dir=tmp_path / "run", **settings)
    assert "nothing was charged" in message
    assert not (tmp_path / "run").exists()
    assert make_trainer(epochs=1, **settings).fit().done == 10  # in memory nothing is kept


def test_an_optimizer_that_cannot_load_what_it_saved_is_refused(tmp_path):
    class Strict(torch.optim.SGD):
        def load_state_dict(self, state):
            if not isinstance(state["param_groups"][0]["window"], tuple):
                raise TypeError("window must be a tuple")

    def strict(params):
        optimizer = Strict(params, lr=0.1)
        optimizer.param_groups[0]["window"] = (1, 2)
        return optimizer

    refused(
        "optimizer Strict: its state, kept and loaded: failed .TypeError",
        model=small_model(), optimizer=strict, run_dir=tmp_path / "run",
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
        lambda p: torch.optim.AdamW(p, amsgrad=True),
        lambda p: torch.optim.Rprop(p),
        lambda p: torch.optim.NAdam(p),
        lambda p: torch.optim.Adagrad(p),
        lambda p: Keeping(p, [1, "two", None]),
    ],
)
def test_those_of_torch_are_kept_and_resumed(kind, tmp_path):
    whole = make_trainer(optimizer=kind).fit()
    part = make_trainer(optimizer=kind, run_dir=tmp_path / "run")
    for at in part.run():
        if at.step == 9:
            break
    part.close()
    again = make_trainer(optimizer=kind, run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
