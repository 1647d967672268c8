"""A gradient that is not autograd's is refused by the parameter's name."""

import pytest
from refused import Made, Words, refused, some_words
from small_problem import make_trainer, small_data, small_model
from torch import nn
from torch.nn import functional

from dpsgd_torch import ModelError
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients


class UsedTwice(nn.Module):
    """A weight used by its layer and by a function."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(36, 36), nn.Linear(36, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.b(self.a(x).tanh() + functional.linear(x, self.a.weight))


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_a_weight_used_by_its_layer_and_by_a_function_is_refused_by_name(gradients):
    match = r"parameter a\.weight: .*do not add up.*outside its own layer"
    refused(match, model=UsedTwice(), gradients=gradients)


def test_a_weight_used_by_a_function_alone_is_refused_by_name():
    def forward(self, x):
        return functional.linear(x, self.layer.weight)

    model = Made(forward)
    model.layer.bias.requires_grad_(False)
    refused(r"parameter layer\.weight: .*do not add up", model=model)


def test_a_penalty_in_the_loss_is_refused():
    model = small_model()

    def penalised(outputs, targets):
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        return losses + model[4].weight.square().sum()

    refused(r"parameter 4\.weight: .*do not add up", model=model, loss=penalised)


def test_scale_grad_by_freq_is_refused_by_name():
    refused(
        "layer words = Embedding: scale_grad_by_freq",
        model=Words(scale_grad_by_freq=True),
        data=some_words(),
    )


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_an_input_written_over_after_its_use_is_refused(gradients):
    def forward(self, x):
        x = x * 2
        out = self.layer(x)
        x.mul_(0.5)
        return out

    refused("backward pass over .*inplace operation", forward, gradients=gradients)
    loss = per_example(nn.CrossEntropyLoss())
    with (
        per_example_gradients(Made(forward), gradients) as engine,
        pytest.raises(ModelError, match="layer layer = Linear: its input is written over in place"),
    ):
        engine.backward(loss, *small_data(4))


def wrong_rule(rule):
    def planted(layer, activations, backprops):
        gradients = rule(layer, activations, backprops)
        gradients[layer.weight] = 1.1 * gradients[layer.weight]
        return gradients

    return planted


@pytest.mark.parametrize(("kind", "path"), [(nn.Conv2d, "0.weight"), (nn.Linear, "4.weight")])
def test_a_planted_wrong_rule_is_caught(monkeypatch, kind, path):
    from dpsgd_torch.gradients.rules.opacus_samplers import SAMPLERS

    monkeypatch.setitem(SAMPLERS, kind, wrong_rule(SAMPLERS[kind]))
    refused(rf"parameter {path}: .*do not add up", model=small_model())


def test_a_planted_wrong_closed_form_is_caught(monkeypatch):
    from dpsgd_torch.gradients.rules.linear import LinearForm

    honest = LinearForm.add_to

    def wrong(self, sums, factors):
        honest(self, sums, factors)
        sums[self.layer.bias] *= 0.9

    monkeypatch.setattr(LinearForm, "add_to", wrong)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    refused(r"parameter 1\.bias: .*do not add up", model=model)


@pytest.mark.parametrize("gradients", ["ghost", "hooks"])
@pytest.mark.parametrize("much", [1e-2, 1e-6])
def test_a_penalty_of_any_size_is_refused(gradients, much):
    """No example's vector holds its gradient: 1e-5 of a squared norm was dropped silently."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    def loss(outputs, targets):
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        return losses + much * model[1].weight.square().sum()

    match = r"parameter 1\.weight: .*outside its own layer's forward"
    refused(match, model=model, loss=loss, gradients=gradients)


@pytest.mark.parametrize("shared", [False, True])
def test_a_rule_whose_norms_are_too_small_is_refused_before_a_charge(monkeypatch, shared):
    """Its vectors are right, so only the clip would let twice as much through."""
    from dpsgd_torch.gradients.rules.linear import LinearForm

    honest = LinearForm.squared_norms

    def short(self, slots):
        squared, error = honest(self, slots)
        wrong = (slots.slots is not None) == shared
        return (squared / 4, error) if wrong else (squared, error)

    monkeypatch.setattr(LinearForm, "squared_norms", short)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(ModelError, match=r"a norm is 0\.\d+ of its vector's"):
        make_trainer(model=model, gradients="ghost")
