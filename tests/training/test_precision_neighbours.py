"""Mixed precision: what one record's coming or going changes of another's vector."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dpsgd_torch.data.trees import call
from dpsgd_torch.gradients.graph import engine as engine_of_graphs
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.precision import Precision

CPU, C, WIDTH = torch.device("cpu"), 1.0, 32
UNIT = {"bf16": 2.0**-8, "fp16": 2.0**-11, "float32": 2.0**-24}


def product(outputs, targets):
    """Whose gradient is Σ_t target_t ⊗ input_t: any matrix."""
    return (outputs * targets).sum((1, 2))


def made(precision: str, model: nn.Module, **settings) -> GraphGradients:
    asked = Precision.of(precision)
    return GraphGradients(
        model, forward=asked.forward(call, CPU), scale=asked.loss_scale, **settings
    )


def clipped_sum(engine, model, inputs, targets) -> torch.Tensor:
    engine.backward(product, inputs, targets)
    vectors = engine.vectors(list(model.parameters()))
    margin = C * vectors.margin
    factors = ((C - margin) / (vectors.norms.double() + 1e-6)).clamp(max=1.0)
    return vectors.totals(factors, margin / 8)[0][0].double()


def most_that_one_record_moves(precision: str, **settings) -> float:
    """One record is left, whose gradient half precision rounds up and down by the most it can.

    The other, which comes and goes, has a gradient of just what that rounding is.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, beside = nn.Linear(WIDTH, WIDTH, bias=False), torch.rand(WIDTH) < 0.5
        engine = made(precision, model, **settings)
        clipped_sum(engine, model, torch.randn(3, WIDTH, WIDTH), torch.randn(3, WIDTH, WIDTH))
    x, y = torch.zeros(1, WIDTH, WIDTH), torch.zeros(1, WIDTH, WIDTH)
    x[:, 0], y[:, 0], x[:, 1] = 1, 1, UNIT[precision]
    y[:, 1] = torch.where(beside, 0.97, 1.03)
    alone = clipped_sum(engine, model, x, y)
    nobody = torch.zeros_like(x)
    with_nobody = clipped_sum(engine, model, torch.cat([x, nobody]), torch.cat([y, nobody]))
    toward = 8 * (with_nobody - alone) / (with_nobody - alone).norm().clamp(min=1e-12)
    other = torch.eye(WIDTH)[None], toward.float().T[None]
    both = clipped_sum(engine, model, torch.cat([x, other[0]]), torch.cat([y, other[1]]))
    return float((both - alone).norm())


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_who_is_left_alone_is_not_rounded_another_way(precision):
    assert most_that_one_record_moves(precision) <= C


def test_the_gradient_that_autograd_rounds_to_half_would_move_by_more_than_the_clip():
    """Planted: as a pass of one example went before 29 November 2026."""
    assert most_that_one_record_moves("bf16", alone=True) > 1.001 * C


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(9, 8), nn.LayerNorm(8)
        self.last = nn.Linear(8, 9)
        self.last.weight = self.words.weight

    def forward(self, x):
        return self.last(self.norm(self.words(x)).mean(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.layer(self.first(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.layer(x)[0][:, -1])


class InPart(nn.Module):
    """Autocast of its own around one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.first(x)
        return self.last(x.float().tanh().mean(1))


def conv(kind, *shape) -> nn.Module:
    layers = kind(4, 8, 3, padding=2, dilation=2, groups=2), nn.GroupNorm(2, 8), nn.ReLU()
    return nn.Sequential(*layers, kind(8, 4, 2, stride=2), nn.Flatten(), nn.LazyLinear(3))


MODELS = {
    "conv1d": (lambda: conv(nn.Conv1d), (4, 10)),
    "conv2d": (lambda: conv(nn.Conv2d), (4, 8, 8)),
    "conv3d": (lambda: conv(nn.Conv3d), (4, 6, 6, 6)),
    "tied": (Tied, None),
    "attention": (Attention, (5, 6)),
    "recurrent": (Recurrent, (5, 6)),
    "in part": (InPart, (5, 6)),
}


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_vector_is_the_same_alone_and_among_others(name, precision):
    problem, shape = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = problem(), torch.randn(8, *(shape or ()))
        x = x if shape else torch.randint(9, (8, 6))
        model(x[:2])
    y, engine, params = torch.arange(8) % 3, made(precision, model), list(model.parameters())

    def vector(rows: int) -> tuple[torch.Tensor, float]:
        losses = engine.backward(
            lambda o, t: cross_entropy(o, t, reduction="none"), x[:rows], y[:rows]
        )
        vectors = engine.vectors(params)
        assert len(vectors.norms) == rows
        return torch.cat([part.double() for part in vectors.vector(0)]), losses

    (among, _), (alone, loss) = vector(8), vector(1)
    assert float((among - alone).norm()) <= 2e-6 * float(among.norm())
    outputs = Precision.of(precision).forward(call, CPU)(model, x[:1]).detach()
    assert loss == pytest.approx(float(cross_entropy(outputs, y[:1])), rel=1e-2)


def test_in_float32_a_lone_example_is_autograds_own_as_ever(monkeypatch):
    model = nn.Linear(6, 3)
    x, y = torch.randn(1, 6), torch.tensor([1])
    monkeypatch.delattr(engine_of_graphs.GraphGradients, "_first_of_two")
    engine = made("float32", model)
    engine.backward(lambda o, t: cross_entropy(o, t, reduction="none"), x, y)
    cross_entropy(model(x), y).backward()
    found = engine.vectors(list(model.parameters())).vector(0)
    for part, p in zip(found, model.parameters(), strict=True):
        assert torch.equal(part, p.grad.flatten().double())
