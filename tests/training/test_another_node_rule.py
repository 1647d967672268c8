"""A node rule of one's own: an operation's gradients in a few lines; no other file knows."""

import re

import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from refused import refused
from small_problem import make_trainer, small_data
from torch import nn

from dpsgd_torch import ModelError, Privacy
from dpsgd_torch.gradients import NoRule, Part, Rows, Tokens, Written, node_rule, outer
from dpsgd_torch.gradients.graph.rules import base
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients

LOSS = per_example(nn.CrossEntropyLoss())


class Scale(torch.autograd.Function):
    """y = factor · x; the calls of its backward are counted."""

    calls = 0

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x, factor)
        return x * factor

    @staticmethod
    def backward(ctx, delta):
        Scale.calls += 1
        x, factor = ctx.saved_tensors
        return delta * factor, (delta * x).sum(tuple(range(x.ndim - 1)))


class Scaled(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 2, width))

    def forward(self, x):
        return Scale.apply(x, self.factor)


NODE = "ScaleBackward"


def right(node, delta, wanted, rows):
    seen = delta * node.saved_tensors[0]
    return {1: Written(rows.split(seen, seen.ndim - 1).sum(1))}


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """What a test registers goes with it."""
    monkeypatch.setattr(base, "_RULES", dict(base._RULES))


def model_of_it() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(36, 12), Scaled(12), nn.Tanh(), nn.Linear(12, 3)
        )


def calls_of(model, data) -> int:
    with per_example_gradients(model, "graph") as engine:
        engine.backward(LOSS, *data)
        before = Scale.calls
        engine.backward(LOSS, *data)
        return Scale.calls - before


@pytest.mark.parametrize("rule", [None, right])
@pytest.mark.parametrize("steps", [1, 4])
def test_an_operation_is_right_without_a_rule_and_with_one(rule, steps):
    if rule:
        node_rule(NODE)(rule)
    first = [nn.Flatten(), nn.Unflatten(1, (steps, 36 // steps)), Scaled(36 // steps)]
    model = nn.Sequential(*first, nn.Tanh(), model_of_it())
    assert error_of_the_clipped_sum(model, small_data(9)) < 2e-6


def test_with_a_rule_its_backward_is_called_once_and_else_once_an_example_more():
    assert calls_of(model_of_it(), small_data(9)) == 1 + 9
    node_rule(NODE)(right)
    assert calls_of(model_of_it(), small_data(9)) == 1


def test_a_model_of_it_trains_and_people_with_several_rows_may_share_a_clip():
    node_rule(NODE)(right)
    units = [i // 3 for i in range(120)]
    trainer = make_trainer(
        model=model_of_it(), units=units, rows_per_unit=3,
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person"),
    ).fit()  # fmt: skip
    assert (trainer.gradients, trainer.done) == ("graph", trainer.sampling.steps)


def test_a_wrong_rule_of_ones_own_is_refused_before_anything_is_charged():
    @node_rule(NODE)
    def wrong(node, delta, wanted, rows):
        return right(node, 1.02 * delta, wanted, rows)

    refused(r"parameter 2\.factor: .*do not add up.*gradients='opacus'", model=model_of_it())


@pytest.mark.parametrize(
    ("factor", "lets"), [(0.8, "let too much through"), (1.2, "take too much away")]
)
def test_a_rule_whose_norms_are_too_small_or_too_large_is_refused_by_the_parameters_name(
    factor, lets
):
    class Misjudged(Written):
        def squared_norms(self):
            squared, error = super().squared_norms()
            return squared * factor**2, error

    @node_rule(NODE)
    def wrong(node, delta, wanted, rows):
        return {1: Misjudged(right(node, delta, wanted, rows)[1].written())}

    refused(
        rf"parameter 2\.factor: a norm is \d[.\d]* of its vector's, .*{lets}", model=model_of_it()
    )


def refuses(node, delta, wanted, rows):
    raise NoRule("is not mine; use Scaled")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (lambda *_: None, "gives NoneType"),
        (lambda *_: {}, r"gives \[\]"),
        (lambda node, delta, wanted, rows: {1: delta}, "gives Tensor for input 1"),
        (lambda node, delta, wanted, rows: {1: Written(delta[:1])}, r"gives \(1, 12\) for input 1"),
        (
            lambda node, delta, wanted, rows: {1: Written(delta[..., None])},
            r"gives \(\d, 12, 1\) for input 1 of shape \(12,\)",
        ),
        (
            lambda node, delta, wanted, rows: {0: Written(delta), 1: Written(delta)},
            r"gives \[0, 1\]",
        ),
        (refuses, "is not mine; use Scaled"),
    ],
)
def test_a_rule_that_gives_something_else_is_refused_by_the_layers_path(rule, told):
    node_rule(NODE)(rule)
    start = r"layer 2 = Scaled: factor: its use \(ScaleBackward\)"
    message = refused(start, model=model_of_it())
    assert re.search(told, message), message


@pytest.mark.parametrize(
    ("names", "rule", "told"),
    [
        ([nn.Linear], right, r"node_rule\(.*Linear.*\): takes names"),
        ([NODE], "right", r"node_rule\(ScaleBackward\) of str: is no function"),
    ],
)
def test_what_is_no_rule_is_refused_where_it_is_registered(names, rule, told):
    with pytest.raises(ModelError, match=told):
        node_rule(*names)(rule)
    assert base.rule_for(NODE) is None


def test_what_a_rule_needs_is_public():
    rows = Rows(3)
    a, b = torch.ones(3, 2), torch.ones(3, 5)
    parts = [outer(rows.split(a, 1), rows.split(b, 1)), Tokens(torch.zeros(3, 1), b[:, None], 4)]
    assert [isinstance(part, Part) for part in parts] == [True, True]
    assert [tuple(part.shape) for part in parts] == [(2, 5), (4, 5)]
