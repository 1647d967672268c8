"""Noise keyed by the sums too, where no digest covers all of the data: no two runs share it."""

import numpy as np
import pytest
import torch
from small_problem import make_trainer, small_data, weights
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset

from dpsgd_torch import Privacy, Validation
from dpsgd_torch.clipping.automatic import AutomaticClipping
from dpsgd_torch.clipping.flat import FlatClipping
from dpsgd_torch.data import columns, sources
from dpsgd_torch.data.base import Data, Rows
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.data.columns import Parts
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.data.padded import Padded
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.optim import Filter
from dpsgd_torch.training import validation
from dpsgd_torch.training.own_code import own_code


def named(seed=1, version="v1"):
    return FromDataset(TensorDataset(*small_data(seed=seed)), fingerprint=version)


@pytest.fixture
def streams(monkeypatch):
    """The state of each generator that noise is drawn from, by what draws it."""
    found = {"steps": [], "validation": []}
    add, normal = IndependentGaussian.add, validation.normal

    def noted(self, sums, params, release):
        found["steps"].append(str(release.rng.bit_generator.state))
        add(self, sums, params, release)

    def noted_normal(rng):
        found["validation"].append(str(rng.bit_generator.state))
        return normal(rng)

    monkeypatch.setattr(IndependentGaussian, "add", noted)
    monkeypatch.setattr(validation, "normal", noted_normal)

    def of(**settings):
        found["steps"].clear()
        found["validation"].clear()
        make_trainer(epochs=1, **settings).fit()
        return list(found["steps"]), list(found["validation"])

    return of


def test_two_data_sets_of_one_name_and_seed_never_meet_the_same_noise(streams):
    (one, _), (again, _), (other, _) = (streams(data=named(seed)) for seed in (1, 1, 2))
    assert one == again
    assert not set(one) & set(other)


def test_without_the_sums_they_would(streams, monkeypatch):
    monkeypatch.setattr(FromDataset, "told_whole", True)
    assert streams(data=named(1))[0] == streams(data=named(2))[0]


def test_validation_rows_of_one_name_never_meet_the_same_noise(streams, monkeypatch):
    def drawn(seed):
        held_out = Validation(tensors=named(seed), noise_multiplier=5.0, bound=2.0)
        return streams(validation=held_out)

    (_, one), (_, again), (_, other) = map(drawn, (7, 7, 8))
    assert one
    assert one == again
    assert not set(one) & set(other)
    monkeypatch.setattr(FromDataset, "told_whole", True)
    assert drawn(7)[1] == drawn(8)[1]


def test_a_step_with_equal_sums_repeats_bit_for_bit_and_is_paid_once(tmp_path):
    whole = make_trainer(data=named(), run_dir=tmp_path / "whole").fit()
    part = make_trainer(data=named(), run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 10:
            break
    part.close()
    resumed = make_trainer(data=named(), run_dir=tmp_path / "part").resume().fit()
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert len(resumed.ledger) == len(whole.ledger)


def test_data_say_whether_their_fingerprint_covers_every_value(monkeypatch):
    x, y = small_data()

    class Own(InMemory):
        def fingerprint(self):
            yield b"v1"

    class Named(Data):
        schema = InMemory(x, y).schema

        def __len__(self):
            return len(x)

        def take(self, indices):
            return x[indices], y[indices]

    class NamedShort(Named):
        def fingerprint(self):
            yield b"v1"

    whole = FromDataset(TensorDataset(x, y))
    assert data_on("cpu", (x, y), "rows").told_whole
    assert data_on("cpu", whole, "rows").told_whole
    assert not data_on("cpu", named(), "rows").told_whole
    assert not named().rows(np.arange(5)).told_whole
    assert data_on("cpu", Named(), "rows").told_whole
    assert not data_on("cpu", NamedShort(), "rows").told_whole
    assert Rows(NamedShort(), np.arange(5)).told_whole  # which passes over them
    parts = Parts({"a": Padded([[1, 2], [3]])}, torch.zeros(2))
    assert parts.told_whole
    for module in (columns, sources, __import__("dpsgd_torch.data.padded", fromlist=["x"])):
        monkeypatch.setattr(module, "WHOLE", 3)
    assert not parts.told_whole


class Turned(Filter):
    """What a user may write: its law is in its code, and its state tells nothing."""

    def apply(self):
        for p in self.params:
            p.grad.neg_()

    def describe(self):
        return "turned"

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Halved(FlatClipping):
    name = "own"

    def factors(self, norms, bound):
        return super().factors(norms, bound) / 2


class Plain(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(p.grad, alpha=group["lr"])


def also_moves(self, closure=None):
    for group in self.param_groups:
        for p in group["params"]:
            p.data.sub_(p.grad.sign(), alpha=group["lr"])


def rewritten(kind, name, function):
    """A class of the same name, one of whose methods was written again."""
    return type(kind.__name__, kind.__bases__, {**vars(kind), name: function})


def clipped_by(kind):
    return Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, clipping=kind())


OTHER = {
    "filter": [
        {"filter": kind()} for kind in (Turned, rewritten(Turned, "apply", lambda self: None))
    ],
    "clipping": [
        {"privacy": clipped_by(kind)}
        for kind in (
            Halved,
            rewritten(Halved, "factors", lambda self, norms, bound: bound / (norms + 9)),
        )
    ],
    "optimizer": [
        {"optimizer": lambda parameters, kind=kind: kind(parameters, lr=0.1)}
        for kind in (Plain, rewritten(Plain, "step", also_moves))
    ],
    "scheduler": [
        {"lr_scheduler": lambda optimizer, fall=fall: LambdaLR(optimizer, fall)}
        for fall in (lambda step: 0.9**step, lambda step: 0.5**step)
    ],
}


def keyed_as(settings):
    """The key that noise is drawn by, told by the first step alone."""
    trainer = make_trainer(epochs=1, **settings)
    progress = trainer.run()
    next(progress)
    progress.close()
    return trainer.state.streams.context


@pytest.mark.parametrize("what", OTHER)
def test_two_kinds_of_one_name_and_other_code_never_meet_the_same_noise(what):
    one, other = OTHER[what]
    assert keyed_as(one) == keyed_as(one)
    assert keyed_as(one) != keyed_as(other)
    assert all(own_code_of(settings) for settings in (one, other))


def own_code_of(settings):
    return own_code(make_trainer(**settings).state)


def test_what_is_the_librarys_own_leaves_the_key_as_it_was():
    settings = {"filter": "doppler", "average": "ema:0.9", "privacy": clipped_by(AutomaticClipping)}
    assert own_code_of(settings) == own_code_of({}) == []
