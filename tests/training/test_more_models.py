"""Models as people write them, the odd ones too, against autograd one example at a time."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.data.trees import call, mapped, taken
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example

ROWS, STEPS, WIDTH, CLASSES = 5, 4, 6, 3


class Written(nn.Module):
    """Layers and parameters by name, and a forward that is a function of them."""

    def __init__(self, run, **held) -> None:
        super().__init__()
        self.run = run
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def some(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def head(width: int = WIDTH) -> nn.Linear:
    return nn.Linear(width, CLASSES)


def cells(m, x):
    h, state = x.new_zeros(len(x), WIDTH), (x.new_zeros(len(x), 5),) * 2
    for step in x.unbind(1):
        h = m.gru(step, h)
        state = m.lstm(h, state)
    return m.head(state[0])


def towers(m, a, b):
    left, right = m.tower(torch.cat([a, b])).chunk(2)
    return m.head((left - right).abs() + left * m.tower(b))


def listed(m, x):
    for weight in m.weights:
        x = torch.tanh(x @ weight)
    return functional.linear(x, m.named["out"])


def position_bias(m, x):
    rows, steps, width = x.shape
    q, k, v = m.qkv(x).view(rows, steps, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    place = torch.arange(steps)
    bias = m.table[place[:, None] - place + steps - 1].permute(2, 0, 1)
    seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    return m.head(seen.transpose(1, 2).reshape(x.shape).mean(1))


def contracted(m, x):
    z = torch.einsum("btd,hde->bhte", x, m.heads).tanh()
    return torch.einsum("bhte,ehk->bk", z, m.out) + torch.einsum("btd,bte,dek->bk", x, x, m.core)


def written_over(m, x):
    h = m.layer(x)
    h[:, 0] = m.token
    h[:, 1:3] += m.shift
    return m.head((h.tanh() * torch.arange(1, 1 + h.shape[1]).to(h)[:, None]).sum(1))


def used_twice(m, x):
    z = functional.linear(m.layer(x), m.layer.weight.T, 2 * m.layer.bias)
    z = z + torch.matmul(m.layer.weight, x[..., None]).squeeze(-1)
    doubled = {name: 2 * p for name, p in m.layer.named_parameters()}
    return m.head(torch.func.functional_call(m.layer, doubled, z))


def filtered(m, x):
    kernel = torch.view_as_complex(m.filter).permute(-1, 0)
    return m.head(torch.fft.irfft(torch.fft.rfft(x, dim=1) * kernel, n=STEPS, dim=1).mean(1))


def scanned(m, x):
    decay = (torch.sigmoid(m.rate).log() * torch.arange(STEPS).to(x)[:, None]).exp()
    return m.head((m.layer(x) * decay.flip(0)).cumsum(1)[:, -1])


def contrasted(m, x):
    return functional.normalize(x) @ functional.normalize(m.words).T * m.scale.exp()


def alike(m, x):
    return m.head(m.scale * m.constant + m.scale * x)


def turned(m, x):
    return m.head(x @ m.square.transpose(-1, 1) @ m.wide.permute(-1, 0).permute(-1, -2))


def generated(m, x):
    return torch.bmm(m.made(x).view(-1, CLASSES, WIDTH), m.layer(x)[..., None]).squeeze(2)


def images(m, x):
    return m.head(m.layers(x.to(memory_format=torch.channels_last)).mean((2, 3)))


def steps_first(m, x):
    return m.head(m.layer(x.transpose(0, 1))[0])


def tagged(m, words):
    return m.out(m.layer(m.table(words)).tanh())


def tied() -> nn.Module:
    model = Written(tagged, table=nn.Embedding(9, WIDTH, padding_idx=0))
    model.layer, model.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 9)
    model.out.weight = model.table.weight
    return model


def parametrized() -> nn.Module:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), head())
    parametrizations.weight_norm(model[0])
    parametrizations.orthogonal(model[2])
    return model


def convolutional() -> nn.Module:
    layers = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 8, 3, groups=4, padding=1), nn.ConvTranspose2d(8, 4, 3, 2)),
    )
    return Written(images, layers=layers, head=head(4)).to(memory_format=torch.channels_last)


def merged(m, x):
    return m.head(functional.linear(x, m.frozen + m.b @ m.a).tanh())


VECTOR, SEQUENCE = (WIDTH,), (STEPS, WIDTH)
LINEAR = {"layer": lambda: nn.Linear(WIDTH, WIDTH), "head": head}  # made anew for each model


def model_of(run, **makers):
    return lambda: Written(run, **{name: make() for name, make in makers.items()})


MODELS = {
    "cells": (
        model_of(
            cells, gru=lambda: nn.GRUCell(WIDTH, WIDTH), lstm=lambda: nn.LSTMCell(WIDTH, 5),
            head=lambda: head(5),
        ),
        SEQUENCE,
    ),
    "towers": (model_of(towers, tower=lambda: nn.Linear(WIDTH, WIDTH), head=head), VECTOR, VECTOR),
    "lists": (
        model_of(
            listed, weights=lambda: nn.ParameterList([some(WIDTH, WIDTH) for _ in "ab"]),
            named=lambda: nn.ParameterDict({"out": some(CLASSES, WIDTH)}),
        ),
        VECTOR,
    ),
    "position bias": (
        model_of(
            position_bias, qkv=lambda: nn.Linear(WIDTH, 3 * WIDTH),
            table=lambda: some(2 * ROWS, 2), head=head,
        ),
        (ROWS, WIDTH),  # as many steps as rows
    ),
    "einsum": (
        model_of(
            contracted, heads=lambda: some(2, WIDTH, 5), out=lambda: some(5, 2, CLASSES),
            core=lambda: some(WIDTH, WIDTH, CLASSES),
        ),
        SEQUENCE,
    ),
    "written over": (
        model_of(written_over, token=lambda: some(WIDTH), shift=lambda: some(WIDTH), **LINEAR),
        SEQUENCE,
    ),
    "used twice": (model_of(used_twice, **LINEAR), VECTOR),
    "filtered": (
        model_of(filtered, filter=lambda: some(WIDTH, STEPS // 2 + 1, 2), head=head), SEQUENCE,
    ),
    "scanned": (model_of(scanned, rate=lambda: some(WIDTH), **LINEAR), SEQUENCE),
    "contrasted": (
        model_of(contrasted, words=lambda: some(CLASSES, WIDTH), scale=lambda: some()), VECTOR,
    ),
    "alike": (
        model_of(
            alike, scale=lambda: some(WIDTH), head=head,
            constant=lambda: nn.Parameter(torch.ones(WIDTH), requires_grad=False),
        ),
        VECTOR,
    ),
    "turned": (
        model_of(
            turned, square=lambda: some(WIDTH, WIDTH), wide=lambda: some(WIDTH, 4),
            head=lambda: head(4),
        ),
        VECTOR,
    ),
    "generated": (
        model_of(
            generated, made=lambda: nn.Linear(WIDTH, CLASSES * WIDTH),
            layer=lambda: nn.Linear(WIDTH, WIDTH),
        ),
        VECTOR,
    ),
    "merged adapter": (
        model_of(
            merged, a=lambda: some(2, WIDTH), b=lambda: some(WIDTH, 2), head=head,
            frozen=lambda: nn.Parameter(torch.ones(WIDTH, WIDTH), requires_grad=False),
        ),
        VECTOR,
    ),
    "steps first": (
        model_of(
            steps_first, head=head,
            layer=lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0),
        ),
        (ROWS, WIDTH),
    ),
    "parametrized": (parametrized, VECTOR),
    "channels last": (convolutional, (3, 8, 8)),
    "tied tags": (tied, None),
}  # fmt: skip

cross_entropy = nn.CrossEntropyLoss()


def over_tags(outputs, tags):
    each = functional.cross_entropy(outputs.transpose(1, 2), tags, reduction="none")
    kept = tags >= 0
    return (each * kept).sum(1) / kept.sum(1).clamp(min=1)


def made(name: str, rows: int = ROWS):
    """(model, inputs, targets, loss)."""
    make, *shapes = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        if shapes == [None]:
            words, tags = torch.randint(9, (2, rows, STEPS))
            tags[0, 2:] = tags[-1] = -100  # part of it, and all
            return model, words, tags, over_tags
        inputs = tuple(torch.randn(rows, *shape) for shape in shapes)
    return model, inputs, torch.arange(rows) % CLASSES, cross_entropy


def alone(model, inputs, targets, loss) -> torch.Tensor:
    params = [p for p in model.parameters() if p.requires_grad]
    found = []
    for row in torch.arange(len(targets)).split(1):
        total = loss(call(model, taken(inputs, row)), taken(targets, row))
        gradients = torch.autograd.grad(total.sum(), params)
        found.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(found)


@pytest.mark.parametrize("name", MODELS)
def test_vectors_and_norms_are_autograds_an_example_at_a_time(name):
    model, inputs, targets, loss = made(name)
    model, loss = copy.deepcopy(model).double(), per_example(loss)
    inputs = mapped(lambda t: t.double() if t.is_floating_point() else t, inputs)
    wanted = alone(model, inputs, targets, loss)
    assert wanted.any()
    engine = GraphGradients(model)
    engine.backward(loss, inputs, targets)
    vectors = engine.vectors([p for p in model.parameters() if p.requires_grad])
    given = torch.stack([torch.cat(vectors.vector(row)) for row in range(ROWS)])
    torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-11)
    assert torch.allclose(vectors.norms, wanted.norm(dim=1), rtol=1e-9, atol=1e-12)
    slots, weights = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0.5, 0.5, 1.0, 0.3, 0.7]).double()
    engine.backward(loss, inputs, targets)
    params = [p for p in model.parameters() if p.requires_grad]
    units = engine.vectors(params, slots, weights)
    summed = torch.zeros(3, wanted.shape[1]).double().index_add(0, slots, wanted * weights[:, None])
    assert torch.allclose(units.norms, summed.norm(dim=1), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_trainer_takes_them_as_they_are(name):
    model, inputs, targets, loss = made(name, 4 * ROWS)
    before = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    Trainer(
        model,
        loss,
        (inputs, targets),
        privacy=Privacy(epsilon=3, delta=1e-2, clip_norm=1.0),
        batch_size=5,
        epochs=0.5,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.01),
        seed=0,
    ).fit()
    after = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
