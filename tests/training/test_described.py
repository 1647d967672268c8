"""Losses that could answer differently are told apart; equal ones are not; no value is printed."""

import copy
import functools
import os
import subprocess
import sys

import pytest
import torch
from small_problem import make_trainer, weights
from torch import nn
from torch.nn import functional as f

from dpsgd_torch import RunError
from dpsgd_torch.training.described import described

WEIGHT = torch.tensor([0.25, 5.0, 0.125])
FACTOR = 7


class Focal(nn.Module):
    def __init__(self, gamma=2.0, weight=None):
        super().__init__()
        self.gamma, self.inner = gamma, nn.CrossEntropyLoss(weight=weight, reduction="none")

    def forward(self, outputs, targets):
        losses = self.inner(outputs, targets)
        return (1 - (-losses).exp()) ** self.gamma * losses


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, outputs, targets):
        return self.scale * f.cross_entropy(outputs, targets, reduction="none")

    def half(self, outputs, targets):
        return self(outputs, targets) / 2


def scaled(scale):
    return lambda o, y: scale * f.cross_entropy(o, y, reduction="none")


def powered(o, y, power=2):
    return (o - y) ** power


def halved(o, y):
    return (o - y) / 2


def focal_otherwise():
    class Otherwise(Focal):
        def forward(self, outputs, targets):
            return super().forward(outputs, targets) / 2

    Otherwise.__name__ = "Focal"
    return Otherwise()


def powered_otherwise(power):
    def powered(o, y, power=power):
        return (o - y) ** power

    return powered


DIFFERENT = {
    "plain": lambda: nn.CrossEntropyLoss(),
    "weighted": lambda: nn.CrossEntropyLoss(weight=WEIGHT),
    "weighted otherwise": lambda: nn.CrossEntropyLoss(weight=WEIGHT.flip(0)),
    "smoothed": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "smoothed more": lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
    "with labels left out": lambda: nn.CrossEntropyLoss(ignore_index=1),
    "a sum": lambda: nn.CrossEntropyLoss(reduction="sum"),
    "positives": lambda: nn.BCEWithLogitsLoss(pos_weight=WEIGHT),
    "each": lambda: nn.BCEWithLogitsLoss(weight=WEIGHT),
    "a function": lambda: f.cross_entropy,
    "a function's option": lambda: functools.partial(f.cross_entropy, label_smoothing=0.1),
    "a function's weights": lambda: functools.partial(f.cross_entropy, weight=WEIGHT),
    "a function's other weights": lambda: functools.partial(f.cross_entropy, weight=2 * WEIGHT),
    "home-made": lambda: Focal(),
    "home-made, 3": lambda: Focal(3.0),
    "home-made, weighted": lambda: Focal(weight=WEIGHT),
    "an object": lambda: Scaled(1.0),
    "another": lambda: Scaled(2.0),
    "a method": lambda: Scaled(1.0).half,
    "another's": lambda: Scaled(2.0).half,
    "a closure": lambda: scaled(1.0),
    "another closure": lambda: scaled(WEIGHT),
    "a closure of a closure": lambda: scaled(scaled(3.0)),
    "code": lambda: lambda o, y: (o - y).abs(),
    "other code": lambda: lambda o, y: (o + y).abs(),
    "another name in it": lambda: lambda o, y: (o - y).square(),
    "a constant": lambda: lambda o, y: 2 * (o - y).abs(),
    "another constant": lambda: lambda o, y: 3 * (o - y).abs(),
    "a function within": lambda: lambda o, y: (lambda z: z.abs())(o - y),
    "another function within": lambda: lambda o, y: (lambda z: z.square())(o - y),
    "a global": lambda: lambda o, y: FACTOR * (o - y).abs(),
    "another global": lambda: lambda o, y: WEIGHT * (o - y).abs(),
    "a global function": lambda: lambda o, y: powered(o, y),
    "another global function": lambda: lambda o, y: halved(o, y),
    "home-made, of the same name": lambda: focal_otherwise(),
    "a default": lambda: powered,
    "another default": lambda: powered_otherwise(3),
    "and another": lambda: powered_otherwise(4),
}


def test_losses_that_differ_are_told_apart():
    told = {name: described(make()) for name, make in DIFFERENT.items()}
    assert len(set(told.values())) == len(told)


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_loss_made_again_is_told_alike_in_one_line_without_tensors(name):
    told = described(DIFFERENT[name]())
    assert told == described(DIFFERENT[name]())
    assert "\n" not in told
    assert "tensor([" not in told
    assert "5.0" not in told
    assert " at 0x" not in told


def test_losses_without_options_are_told_as_before():
    assert described(nn.MSELoss()) == "MSELoss()"
    assert described(nn.HuberLoss()) == "HuberLoss()"
    assert described(f.binary_cross_entropy_with_logits) == "binary_cross_entropy_with_logits"


def test_what_holds_itself_comes_to_an_end():
    looped = Scaled(1.0)
    looped.scale = looped
    assert described(looped).startswith("Scaled(scale=Scaled(")


@pytest.mark.parametrize("other", ["weighted otherwise", "plain", "smoothed"])
def test_a_run_is_not_resumed_with_another_loss(tmp_path, other):
    make_trainer(loss=DIFFERENT["weighted"](), run_dir=tmp_path / "run").fit().close()
    with pytest.raises(RunError, match="its loss changed") as refusal:
        make_trainer(loss=DIFFERENT[other](), run_dir=tmp_path / "run").resume()
    assert "0.25" not in str(refusal.value)
    again = make_trainer(loss=DIFFERENT["weighted"](), run_dir=tmp_path / "run").resume()
    assert again.done == again.sampling.steps


def test_two_losses_never_meet_the_same_noise():
    """With all gradients zero what is released is noise alone."""

    def released(scale):
        def flat(outputs, targets):
            return scale * outputs.sum(1)

        trainer = make_trainer(loss=flat).fit()
        return weights(trainer.model)

    assert torch.equal(released(0.0), released(0.0))
    assert not torch.equal(released(0.0), released(-0.0))


def net(activation, factor=1.0):
    """Models of one name, one shape and one set of weights; only their forward passes differ."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.factor = nn.Linear(4, 3), factor

        def forward(self, x):
            return activation(self.layer(x)) * self.factor * 0.0

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


@pytest.mark.filterwarnings("ignore:local, not covered by ε.* inputs hold one value")
def test_two_models_never_meet_the_same_noise():
    """With all gradients zero what is released is noise alone: it differs by the code."""

    def released(model):
        data = torch.ones(60, 4), torch.arange(60) % 3
        return weights(make_trainer(model=model, data=data, epochs=1).fit().model)

    one = released(net(torch.tanh))
    assert torch.equal(one, released(net(torch.tanh)))
    assert not torch.equal(one, released(net(f.relu)))
    assert not torch.equal(one, released(net(torch.tanh, factor=2.0)))


def test_a_copy_is_told_alike():
    loss = Focal(weight=WEIGHT)
    assert described(copy.deepcopy(loss)) == described(loss)


TOLD = """
import uuid
SESSION = uuid.uuid4().hex
def asked(word):
    return lambda outputs, targets: SESSION and word in {"mean", "sum", "none", "batchmean"}
from dpsgd_torch.training.described import described
print(described(asked("sum")))
"""


def test_what_differs_between_processes_alone_is_not_told():
    told = []
    for seed in ("1", "2"):  # by which strings are hashed, and sets ordered
        done = subprocess.run(
            [sys.executable, "-c", TOLD],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        told.append(done.stdout)
    assert told[0] == told[1]
