"""A gradient that is not autograd's is refused by the parameter's name."""

import pytest
from gradient_oracle import clipped, engine_sum, error_of_the_clipped_sum, gradients_alone
from refused import Made, Words, refused, some_words
from small_problem import make_trainer, small_data, small_model
from torch import nn
from torch.nn import functional

from dpsgd_torch import ModelError
from dpsgd_torch.gradients.graph.rules import base
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.gradients.parts import Outer, Written


class UsedTwice(nn.Module):
    """A weight used by its layer and by a function."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(36, 36), nn.Linear(36, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.b(self.a(x).tanh() + functional.linear(x, self.a.weight))


def used_by_a_function():
    model = Made(lambda self, x: functional.linear(x, self.layer.weight))
    model.layer.bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "name"), [(UsedTwice, r"a\.weight"), (used_by_a_function, r"layer\.weight")]
)
def test_a_weight_used_by_a_function_is_right_and_refused_where_hooks_miss_it(make, name):
    match = rf"parameter {name}: .*do not add up.*outside its own layer.*gradients='graph'"
    refused(match, model=make(), gradients="opacus")
    assert error_of_the_clipped_sum(make(), small_data(9)) < 2e-6
    assert make_trainer(model=make()).fit().done == 30


@pytest.mark.parametrize("much", [1.0, 1e-2, 1e-6])
def test_a_penalty_in_the_loss_is_each_examples_own_and_refused_where_hooks_miss_it(much):
    """No hooked layer's vector holds it: 1e-5 of a squared norm was dropped silently."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    def penalty(weight, count):
        return (much * weight.square().sum()).expand(count)

    def penalised(outputs, targets):
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        return losses + penalty(model[1].weight, len(targets))

    match = r"parameter 1\.weight: .*(outside its own layer|do not add up)"
    refused(match, model=model, loss=penalised, gradients="opacus")
    data = small_data(9)
    rows = gradients_alone(model, data)
    decay = 2 * much * model[1].weight.detach().double().flatten()
    rows[:, : decay.numel()] += decay
    clip = float(rows.norm(dim=1).median())
    found = engine_sum(model, data, "graph", clip, penalised)
    wanted = clipped(rows, clip)
    assert float((found - wanted).norm() / wanted.norm()) < 2e-6
    assert make_trainer(model=model, loss=penalised).fit().done == 30


def test_scale_grad_by_freq_is_refused_by_name():
    refused(
        "layer words = Embedding: .*scale_grad_by_freq",
        model=Words(scale_grad_by_freq=True),
        data=some_words(),
    )


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
def test_an_input_written_over_after_its_use_is_refused(gradients):
    def forward(self, x):
        x = x * 2
        out = self.layer(x)
        x.mul_(0.5)
        return out

    refused("backward pass over .*inplace operation", forward, gradients=gradients)
    loss = per_example(nn.CrossEntropyLoss())
    told = {
        "opacus": pytest.raises(ModelError, match="layer layer = Linear: its input is"),
        "graph": pytest.raises(RuntimeError, match="modified by an inplace operation"),
    }
    with per_example_gradients(Made(forward), gradients) as engine, told[gradients]:
        engine.backward(loss, *small_data(4))


def wrong_rule(rule):
    def planted(layer, activations, backprops):
        gradients = rule(layer, activations, backprops)
        gradients[layer.weight] = 1.1 * gradients[layer.weight]
        return gradients

    return planted


@pytest.mark.parametrize(("kind", "path"), [(nn.Conv2d, "0.weight"), (nn.Linear, "4.weight")])
def test_a_planted_wrong_layer_rule_is_caught(monkeypatch, kind, path):
    from dpsgd_torch.gradients.rules.opacus_samplers import samplers

    monkeypatch.setitem(samplers(), kind, wrong_rule(samplers()[kind]))
    refused(rf"parameter {path}: .*do not add up", model=small_model(), gradients="opacus")


@pytest.mark.parametrize(
    ("node", "path"), [("ConvolutionBackward0", r"0\.weight"), ("AddmmBackward0", r"4\.weight")]
)
def test_a_planted_wrong_node_rule_is_caught(monkeypatch, node, path):
    honest = base.rule_for(node)

    def planted(node, delta, wanted, rows):
        return honest(node, 1.1 * delta, wanted, rows)

    monkeypatch.setitem(base._RULES, node, planted)
    refused(rf"parameter {path}: .*do not add up.*gradients='opacus'", model=small_model())


def test_a_planted_wrong_sum_is_caught(monkeypatch):
    honest = Outer.add_to

    def wrong(self, total, factors, within):
        error = honest(self, total, factors, within)
        total *= 0.9
        return error

    monkeypatch.setattr(Outer, "add_to", wrong)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    refused(r"parameter 1\.weight: .*do not add up", model=model)


@pytest.mark.parametrize("factor", [0.25, 0.9, 1.1, 4.0])
@pytest.mark.parametrize("shared", [False, True])
def test_a_part_whose_norms_are_wrong_is_refused_before_a_charge(monkeypatch, shared, factor):
    """Its vectors are right: only the clip would let more through, or take more away."""

    def plant(kind):
        grouped, norms = kind.grouped, kind.squared_norms

        def marked(self, slots, weights, count):
            part = grouped(self, slots, weights, count)
            part.of_slots = True
            return part

        def wrong(self):
            squared, error = norms(self)
            planted = hasattr(self, "of_slots") == shared
            return squared * factor if planted else squared, error

        monkeypatch.setattr(kind, "grouped", marked)
        monkeypatch.setattr(kind, "squared_norms", wrong)

    plant(Outer)
    plant(Written)
    lets = "let too much through" if factor < 1 else "take too much away"
    told = rf"parameter 1\.(weight|bias): a norm is \d[.\d]* of its vector's, .*{lets}"
    refused(told, model=nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))
