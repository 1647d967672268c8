"""The graph engine's norms and sums against one backward pass an example, in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.layers import WeightNormLinear

LOSS = per_example(nn.BCEWithLogitsLoss())
ROWS, INPUTS, OUTPUTS = 12, 30, 5


def tabular_model(seed: int = 0) -> nn.Module:
    """Layers of a tabular model, at scales that differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.LayerNorm(INPUTS),
            WeightNormLinear(INPUTS, 40),
            nn.ReLU(),
            nn.LayerNorm(40),
            nn.Linear(40, 20),
            nn.Tanh(),
            nn.Linear(20, 20, bias=False),
            WeightNormLinear(20, OUTPUTS),
        )
        for p in model.parameters():
            nn.init.normal_(p, std=float(torch.rand(()) + 0.2))
    return model


def some_data(rows: int = ROWS, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(rows, INPUTS, generator=generator)
    return x, torch.randint(2, (rows, OUTPUTS), generator=generator).float()


def gradients_alone(model: nn.Module, data) -> torch.Tensor:
    """(rows, parameters), each row by autograd on its own, in float64."""
    model = tabular_copy(model)
    rows = []
    for x, y in zip(*data, strict=True):
        model.zero_grad()
        LOSS(model(x[None].double()), y[None].double()).sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(rows)


def tabular_copy(model: nn.Module) -> nn.Module:
    twin = tabular_model()
    twin.load_state_dict(model.state_dict())
    return twin.double()


def graph_vectors(model, data, slots=None, weights=None):
    engine = GraphGradients(model)
    try:
        engine.backward(LOSS, *data)
        return engine.vectors(list(model.parameters()), slots, weights)
    finally:
        engine.cleanup()


def sum_of(model, vectors, factors) -> torch.Tensor:
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    vectors.add_to(sums, factors)
    return torch.cat([total.flatten() for total in sums])


@pytest.mark.parametrize("seed", range(5))
def test_norms_agree_with_autograd_beyond_their_rounding(seed):
    model, data = tabular_model(seed), some_data(seed=seed)
    expected = gradients_alone(model, data).norm(dim=1)
    norms = graph_vectors(model, data).norms.double()
    assert float(((norms - expected) / expected).abs().max()) < 2e-6


def test_sums_and_single_vectors_agree_with_autograd():
    model, data = tabular_model(), some_data()
    expected = gradients_alone(model, data)
    factors = torch.rand(ROWS, generator=torch.Generator().manual_seed(2))
    vectors = graph_vectors(model, data)
    got, wanted = sum_of(model, vectors, factors), factors.double() @ expected
    assert float((got - wanted).norm() / wanted.norm()) < 1e-6
    third = torch.cat(vectors.vector(3))
    assert float((third - expected[3]).norm() / expected[3].norm()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_can_be_asked_again_after_they_were_added(dtype):
    model, data = tabular_model().to(dtype), [part.to(dtype) for part in some_data()]
    vectors = graph_vectors(model, data)
    factors = torch.full((ROWS,), 0.25, dtype=dtype)
    first, norm = sum_of(model, vectors, factors), vectors.norm(3)
    assert torch.equal(first, sum_of(model, vectors, factors))
    assert norm == pytest.approx(float(torch.cat(vectors.vector(3)).norm()), rel=1e-6)
    assert norm == pytest.approx(float(vectors.norms[3]), rel=1e-5)


SHARED = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 4])


def test_rows_of_one_slot_add_up_before_the_norm_is_taken():
    model, data = tabular_model(), some_data()
    weights = (1 / torch.bincount(SHARED))[SHARED]
    expected = torch.zeros(5, sum(p.numel() for p in model.parameters())).double()
    expected.index_add_(0, SHARED, gradients_alone(model, data) * weights[:, None].double())
    vectors = graph_vectors(model, data, SHARED, weights)
    error = (vectors.norms.double() - expected.norm(dim=1)) / expected.norm(dim=1)
    assert float(error.min()) > -1e-6
    assert float(error.max()) < 1e-5  # pairs may cancel, so it is kept above
    factors = torch.tensor([0.5, 1.0, 0.0, 0.2, 0.7])
    wanted = factors.double() @ expected
    assert float((sum_of(model, vectors, factors) - wanted).norm() / wanted.norm()) < 1e-6
    fourth = torch.cat(vectors.vector(3))
    assert float((fourth - expected[3]).norm() / expected[3].norm()) < 1e-6
    assert vectors.norm(3) == pytest.approx(float(expected[3].norm()), rel=1e-6)


def test_rounding_never_makes_a_norm_too_small_where_terms_cancel():
    """Inputs along v: all of ∂v cancels, and two rows of a slot cancel each other."""
    layer = WeightNormLinear(2000, 3)
    with torch.no_grad():
        layer.weight_v.normal_(generator=torch.Generator().manual_seed(0))
        layer.weight_g.copy_(torch.tensor([1e3, 1e2, 1e4]))
    x = layer.weight_v.detach() * torch.tensor([[1.0], [3.0], [-2.0]])
    x = torch.cat([x, x])
    sign = torch.tensor([1.0, 1, 1, -1, -1, -1])
    y = sign[:, None]
    loss = per_example(lambda out, sign: (out * sign * 1e-3).sum(1))
    for slots in (None, torch.tensor([0, 0, 1, 1, 2, 2])):
        engine = GraphGradients(layer)
        engine.backward(loss, x, y)
        vectors = engine.vectors(list(layer.parameters()), slots, slots if slots is None else None)
        engine.cleanup()
        for slot, norm in enumerate(vectors.norms.tolist()):
            truth = float(torch.cat(vectors.vector(slot)).norm())
            assert norm >= truth * (1 - 1e-6)
            assert vectors.norm(slot) == pytest.approx(truth, rel=1e-4, abs=1e-3 * norm)
            assert norm < 1.05 * truth + 1.0


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("slots", [None, SHARED])
def test_an_example_that_is_not_finite_counts_as_zero(poison, slots):
    model, data = tabular_model(), some_data()
    hurt = (data[0].clone(), data[1])
    hurt[0][1] = poison
    model[0] = nn.Identity()  # a layer norm would tame the infinite
    vectors = graph_vectors(model, hurt, slots)
    count = len(vectors.norms)
    clean = gradients_without(model, data, row=1)
    factors = torch.ones(count).where(torch.isfinite(vectors.norms), 0.0)
    got = sum_of(model, vectors, factors)
    assert float((got - clean).norm() / clean.norm()) < 1e-5
    if slots is None:
        assert not math.isfinite(float(vectors.norms[1]))


def gradients_without(model, data, row):
    kept = [i for i in range(ROWS) if i != row]
    vectors = graph_vectors(model, (data[0][kept], data[1][kept]))
    return sum_of(model, vectors, torch.ones(ROWS - 1))


def test_opacus_hooks_give_the_same_gradients():
    model, data = tabular_model(), some_data()
    expected = graph_vectors(model, data)
    hooks = OpacusGradients(model)
    hooks.backward(LOSS, *data)
    stored = hooks.vectors(list(model.parameters()))
    hooks.cleanup()
    assert torch.allclose(stored.norms, expected.norms, rtol=2e-6)
    factors = torch.ones(ROWS)
    a, b = sum_of(model, stored, factors), sum_of(model, expected, factors)
    assert float((a - b).norm() / a.norm()) < 1e-6


def test_weight_norm_is_torchs():
    ours = WeightNormLinear(4, 3)
    theirs = weight_norm(nn.Linear(4, 3), dim=0)
    with torch.no_grad():
        theirs.parametrizations.weight.original0.copy_(ours.weight_g[:, None])
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
        theirs.bias.copy_(ours.bias)
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


class Gated(nn.Module):
    """Steps before examples in memory, and an example whose gate is shut sends no gradient back."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, OUTPUTS)

    def forward(self, x):
        steps = x.view(len(x), 10, 3).transpose(0, 1).flatten(0, 1)  # (steps × examples, 3)
        seen = self.first(steps).unflatten(0, (10, len(x))).sum(0)
        return self.last(seen) * (x[:, :1] > 0)


@pytest.mark.parametrize("open_at", [0, 1, 5])
def test_where_examples_are_is_not_guessed_from_one_that_sends_no_gradient(open_at):
    """Guessed, the rows of one example were taken for another's: found by random architectures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gated()
    x, y = some_data()
    x[:, 0] = -x[:, 0].abs()
    x[open_at:, 0] = x[open_at:, 0].abs()
    expected = torch.stack([autograd_alone(model, x[i : i + 1], y[i : i + 1]) for i in range(ROWS)])
    vectors = graph_vectors(model, (x, y))
    assert torch.allclose(vectors.norms.double(), expected.norm(dim=1), rtol=1e-5)
    assert torch.allclose(torch.cat(vectors.vector(7)), expected[7], rtol=1e-4, atol=1e-6)


def autograd_alone(model, x, y) -> torch.Tensor:
    twin = Gated().double()
    twin.load_state_dict(model.state_dict())
    LOSS(twin(x.double()), y.double()).sum().backward()
    return torch.cat([p.grad.flatten() for p in twin.parameters()])


class Recomputed(nn.Module):
    """Activation checkpointing, which gives what was saved once in a pass."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(INPUTS, INPUTS) for _ in range(3)])
        self.last = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, x):
        for layer in self.layers:
            x = checkpoint(lambda x, layer=layer: layer(x).tanh(), x, use_reentrant=False)
        return self.last(x)


def test_activation_checkpointing_changes_no_gradient():
    model, data = Recomputed(), some_data()
    plain = nn.Sequential(
        *(part for layer in model.layers for part in (layer, nn.Tanh())), model.last
    )
    found, wanted = graph_vectors(model, data), graph_vectors(plain, data)
    assert torch.allclose(found.norms, wanted.norms, rtol=1e-6)
    factors = torch.linspace(0.1, 1, ROWS)
    found, wanted = sum_of(model, found, factors), sum_of(plain, wanted, factors)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6
