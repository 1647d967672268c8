"""Tied weights, layers used twice and views: saved once, resumed, and told under every name."""

import pytest
import torch
from refused import refused
from safetensors.torch import load_file, load_model
from small_problem import make_trainer, small_data, weights
from torch import nn

from dpsgd_torch import EarlyStopping, RunError, Validation
from dpsgd_torch.storage.sealed import tensors_from_bytes, tensors_to_bytes


def untied() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second, last = nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 3)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), second, nn.Tanh(), last)


def twice() -> nn.Module:
    """One layer at two places."""
    model = untied()
    model[3] = model[1]
    return model


def shared() -> nn.Module:
    """Two layers that share a weight, each with a bias of its own."""
    model = untied()
    model[3].weight = model[1].weight
    return model


def views() -> nn.Module:
    """Two layers whose weights are parts of one memory."""
    model = untied()
    memory = torch.cat([model[1].weight.detach(), model[5].weight.detach()])
    model[1].weight, model[5].weight = nn.Parameter(memory[:36]), nn.Parameter(memory[36:])
    return model


KINDS = {twice: ["3.bias", "3.weight"], shared: ["3.weight"], views: []}


@pytest.mark.parametrize("make", KINDS)
def test_what_is_saved_holds_a_tied_tensor_once_and_is_read_under_every_name(make, tmp_path):
    trainer = make_trainer(model=make(), gradients="opacus").fit()
    file = trainer.save(tmp_path / "out") / "model.safetensors"
    state = trainer.model.state_dict()
    assert sorted(set(state) - set(load_file(file))) == KINDS[make]
    read = tensors_from_bytes(file.read_bytes(), file)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)
    if make is not views:  # whose own state safetensors refuses to look at
        other = make()
        load_model(other, file)
        assert torch.equal(weights(other), weights(trainer.model))
    other = make()
    other.load_state_dict(read)
    assert torch.equal(weights(other), weights(trainer.model))


@pytest.mark.parametrize("make", KINDS)
def test_a_run_with_tied_weights_resumes_and_stays_tied(make, tmp_path):
    whole = make_trainer(model=make(), gradients="opacus", run_dir=tmp_path / "whole").fit()
    begun = make_trainer(model=make(), gradients="opacus", run_dir=tmp_path / "run")
    for progress in begun.run():
        if progress.step == 17:
            break
    begun.close()
    model = make()
    again = make_trainer(model=model, gradients="opacus", run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(model), weights(whole.model))
    if make is not views:
        assert model[3].weight is model[1].weight
    for trainer in (whole, again):
        trainer.save(trainer.folder.path)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_best_epoch_of_a_tied_model_is_kept(tmp_path):
    scores = iter([3.0, 1.0, 2.0])
    kept = []
    trainer = make_trainer(
        model=shared(), gradients="opacus", run_dir=tmp_path / "run",
        validation=Validation(tensors=small_data(20, seed=5), public=True),
        early_stopping=EarlyStopping(keep_best=True),
    )  # fmt: skip
    trainer.steering.held_out.mean = lambda model: next(scores)
    for progress in trainer.run():
        if progress.record:
            kept.append(weights(trainer.model).clone())
    assert torch.equal(weights(trainer.model), kept[1])
    assert trainer.model[3].weight is trainer.model[1].weight


@pytest.mark.parametrize("name", [b'3.weight\\": \\"1', b'1.weight\\"}'])
def test_an_alias_that_was_damaged_is_refused(name, tmp_path):
    content = tensors_to_bytes(shared().state_dict())
    assert content.count(name) == 1
    with pytest.raises(RunError, match="damaged"):
        tensors_from_bytes(content.replace(name, name.replace(b"1", b"5")), tmp_path / "file")


class Spread(nn.Module):
    """Holds a buffer of many rows in the memory of one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)
        self.register_buffer("rows", torch.ones(1, 3).expand(4, 3))

    def forward(self, x):
        return self.layer(x.flatten(1)) * self.rows[0]


class Renames(nn.Module):
    """Saves under other names than it loads."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def state_dict(self, *args, **kwargs):
        return {f"core.{k}": v for k, v in super().state_dict(*args, **kwargs).items()}


@pytest.mark.parametrize("make", [Spread, Renames])
def test_a_model_that_cannot_be_resumed_is_refused_before_anything_is_charged(make, tmp_path):
    refused("state, as it is loaded again", model=make(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    trainer = make_trainer(model=make(), epochs=1).fit()
    assert trainer.save(tmp_path / "out").exists()


def test_a_model_that_loads_something_else_than_it_saved_is_refused(tmp_path):
    class Doubles(Renames):
        state_dict = nn.Module.state_dict

        def load_state_dict(self, state, *args, **kwargs):
            return super().load_state_dict({k: 2 * v for k, v in state.items()}, *args, **kwargs)

    refused(r"layer\.weight: is another when", model=Doubles(), run_dir=tmp_path / "run")
