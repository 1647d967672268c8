"""A layer rule of one's own for the opacus engine, held against autograd."""

import re

import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from refused import refused
from small_problem import make_trainer, small_data
from torch import nn

from dpsgd_torch import ModelError, Privacy
from dpsgd_torch.gradients import LayerRule, register
from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.rules.embedding import EmbeddingRule
from dpsgd_torch.gradients.rules.opacus_samplers import OpacusRule
from dpsgd_torch.gradients.rules.registry import is_registered

LOSS = per_example(nn.CrossEntropyLoss())


class Scale(nn.Module):
    """y = factor · x; what it is run with is counted, so that vmap would be seen."""

    def __init__(self, width: int):
        super().__init__()
        self.factor, self.calls = nn.Parameter(torch.linspace(0.5, 2, width)), 0

    def forward(self, x):
        self.calls += 1
        return self.factor * x


class Stored(Scale):
    pass


@register(Stored)
class StoredRule(LayerRule):
    def per_example(self, use, delta):
        return {use.layer.factor: delta * use.x}


class Wrong(Scale):
    pass


@register(Wrong)
class WrongRule(LayerRule):
    def per_example(self, use, delta):
        return {use.layer.factor: 1.01 * delta * use.x}


class ProjectionRule(OpacusRule):
    def sampled(self, layer, x, delta):
        return {layer.weight: delta[:, :, None] * x[:, None], layer.bias: delta}


class Projection(nn.Linear):
    """The same as torch's, under a name of its own."""


register(Projection)(ProjectionRule)


class Unclippable(Scale):
    pass


@register(Unclippable)
class UnclippableRule(LayerRule):
    def refusal(self, layer):
        return "sees the whole batch; use Scale"


def model_of(kind) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), kind(12), nn.Tanh(), nn.Linear(12, 3))


@pytest.mark.parametrize("kind", [Scale, Stored])
def test_a_rule_of_ones_own_gives_autograds_gradients(kind):
    assert error_of_the_clipped_sum(model_of(kind), small_data(9), "opacus") < 2e-6


@pytest.mark.parametrize(("kind", "calls"), [(Scale, 2), (Stored, 1)])
def test_it_is_the_rule_that_is_asked_and_without_one_the_layer_is_run_again(kind, calls):
    model = model_of(kind)
    engine = OpacusGradients(model)
    engine.backward(LOSS, *small_data(9))
    assert model[2].calls == calls
    assert model[2].factor.grad_sample.shape == (9, 12)
    engine.cleanup()


def test_a_model_of_it_trains_and_people_with_several_rows_may_share_a_clip():
    trainer = make_trainer(
        model=model_of(Stored), units=[i // 3 for i in range(120)], rows_per_unit=3,
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person"),
        gradients="opacus",
    ).fit()  # fmt: skip
    assert trainer.done == trainer.sampling.steps


def test_a_wrong_rule_of_ones_own_is_refused_before_anything_is_charged():
    refused(r"parameter 2\.factor: .*do not add up", model=model_of(Wrong), gradients="opacus")


def gives(what):
    """A model whose rule gives ``what`` says of a layer's use."""

    class Odd(Scale):
        pass

    @register(Odd)
    class OddRule(LayerRule):
        def per_example(self, use, delta):
            return what(use.layer, use.x, delta)

    return model_of(Odd)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda layer, x, delta: {layer.factor: (x * delta).sum(0)}, r"shape \(12,\) for factor"),
        (lambda layer, x, delta: {layer.factor: (x * delta)[:1]}, r"shape \(1, 12\) for factor"),
        (
            lambda layer, x, delta: {layer.factor: (x * delta)[..., None]},
            r"shape \(\d, 12, 1\) for",
        ),
        (lambda layer, x, delta: {layer.factor: None}, "NoneType for factor"),
        (lambda layer, x, delta: {"factor": x * delta}, "what is no parameter of it"),
        (lambda layer, x, delta: x * delta, "Tensor; return"),
    ],
)
def test_a_rule_that_gives_something_else_is_refused_by_its_name_and_its_layers(what, told):
    start = r"layer 2 = Odd: its rule OddRule\.per_example gives"
    message = refused(start, model=gives(what), gradients="opacus")
    assert re.search(told, message), message


@pytest.mark.parametrize(
    ("layer", "rule", "told"),
    [
        (Scale, nn.Linear, r"register\(Scale\) of Linear: is no LayerRule"),
        (Scale, EmbeddingRule(), r"register\(Scale\) of EmbeddingRule: is no LayerRule"),
        (Scale, lambda use, delta: {}, r"register\(Scale\) of function: is no LayerRule"),
        (EmbeddingRule, EmbeddingRule, r"register\(EmbeddingRule\): takes types of layers"),
        (nn.Linear(1, 1), EmbeddingRule, r"register\(Linear\): takes types of layers"),
    ],
)
def test_what_is_no_rule_of_a_layer_is_refused_where_it_is_registered(layer, rule, told):
    with pytest.raises(ModelError, match=told):
        register(layer)(rule)
    assert not is_registered(Scale(1))


def test_another_layers_rule_may_be_given_and_a_rule_may_refuse():
    model = nn.Sequential(nn.Flatten(), Projection(36, 3))
    assert make_trainer(model=model, gradients="opacus").gradients == "opacus"
    told = "layer 2 = Unclippable: sees the whole batch"
    refused(told, model=model_of(Unclippable), gradients="opacus")
