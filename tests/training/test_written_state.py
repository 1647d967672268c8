"""What the forward pass writes is refused by name and put back."""

import pytest
import torch
from refused import Made, Words, refused, some_words
from small_problem import make_trainer, small_data
from torch import nn
from torch.nn import functional

from dpsgd_torch import Validation


@pytest.mark.parametrize("frozen", [False, True])
def test_an_embedding_that_renormalises_what_it_looks_up_is_refused_by_name(frozen):
    refused(
        r"layer words = Embedding: max_norm=1.0",
        model=Words(frozen, max_norm=1.0),
        data=some_words(),
    )


class WordsByFunction(Words):
    def forward(self, x):
        return self.layer(functional.embedding(x, self.words.weight, max_norm=0.1).mean(1))


def remember(self, x):
    self.seen.mul_(0.9).add_(x.detach().mean(0))
    return self.layer(x)


def replace(self, x):
    self.seen = self.seen * 0.9 + x.detach().mean(0)
    return self.layer(x)


def frozen_parameter(self, x):
    with torch.no_grad():
        self.kept[0] = x[0, 0]
    return self.layer(x)


def own_weight(self, x):
    with torch.no_grad():
        self.layer.weight[0, 0] = x.max()
    return self.layer(x)


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (remember, "buffer seen"),
        (replace, "buffer seen"),
        (frozen_parameter, "parameter kept"),
        (own_weight, "parameter layer.weight"),
    ],
)
def test_whatever_a_pass_writes_to_is_named_and_put_back(forward, name):
    model = Made(forward, kept=nn.Parameter(torch.zeros(2), requires_grad=False))
    model.register_buffer("seen", torch.zeros(36))
    refused(f"{name}: changes in a forward pass", model=model)


def test_a_function_that_renormalises_a_frozen_table_is_caught():
    model = WordsByFunction(frozen=True)
    refused(r"parameter words\.weight: changes in a forward pass", model=model, data=some_words())


class Counting(Made):
    """State that only get_extra_state tells."""

    def __init__(self):
        super().__init__(lambda self, x: self.layer(x))
        self.count = 0

    def forward(self, x):
        self.count += len(x)
        return super().forward(x)

    def get_extra_state(self):
        return torch.tensor(self.count)

    def set_extra_state(self, state):
        self.count = int(state)


def test_extra_state_that_a_pass_writes_is_refused():
    refused("extra state of model: changes in a forward pass", model=Counting())


def history(self, x):
    out = self.layer(x) * (1 + self.past)
    self.past = float(x.detach().mean())
    return out


def test_a_model_that_remembers_earlier_passes_is_refused():
    refused("is not the one it has alone|changes with another", history, more={"past": 0.0})


def test_what_a_pass_in_eval_mode_writes_is_refused_too():
    def in_eval(self, x):
        if not self.training:
            self.seen.copy_(x.mean(0))
        return self.layer(x)

    for changes in (
        {"test_tensors": small_data(30)},
        {"validation": Validation(tensors=small_data(30), noise_multiplier=20.0)},
    ):
        model = Made(in_eval)
        model.register_buffer("seen", torch.zeros(36))
        refused("buffer seen: changes in a forward pass", model=model, **changes)


def keeps_last(self, x):
    out = self.layer(x - 1e-5 * self.kept)
    self.kept = x.detach().mean(0)
    return out


def keeps_average(self, x):
    self.kept = (1 - 1e-6) * self.kept + 1e-6 * x.detach().mean(0)
    return self.layer(x - self.kept)


@pytest.mark.parametrize("gradients", ["graph", "opacus"])
@pytest.mark.parametrize("forward", [keeps_last, keeps_average])
def test_an_attribute_that_carries_examples_into_the_next_pass_is_refused(forward, gradients):
    """However little it weighs: over a run it adds up, and no clip bounds it."""
    match = r"keeps of earlier passes \(kept\)"
    refused(match, forward, more={"kept": torch.zeros(36)}, gradients=gradients)


def keeps_outputs(self, x):
    self.kept = self.layer(x)
    return self.kept


def keeps_positions(self, x):
    if self.kept is None:
        self.kept = torch.linspace(0, 1, 36)
    return self.layer(x + self.kept)


@pytest.mark.parametrize("forward", [keeps_outputs, keeps_positions])
def test_an_attribute_that_no_later_pass_reads_or_that_no_example_changes_is_none(forward):
    trainer = make_trainer(model=Made(forward, kept=None), epochs=1)
    assert trainer.fit().done == trainer.sampling.steps
