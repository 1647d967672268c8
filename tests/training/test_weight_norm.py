"""WeightNormLinear is one node of the graph, and its examples' gradients are never written out."""

import copy

import pytest
import torch
from gradient_oracle import clipped, engine_sum, error_of_the_clipped_sum, gradients_alone
from torch import nn
from torch.utils.checkpoint import checkpoint

from dpsgd_torch import WeightNormLinear
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.parts import Outer, Projected
from dpsgd_torch.layers import WeightNormProduct

ONE_NODE = "WeightNormProductBackward"


def layer(inputs: int, outputs: int, seed: int = 0) -> WeightNormLinear:
    made, source = WeightNormLinear(inputs, outputs), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(generator=source)
    return made


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = layer(6, 6), layer(6, 3)

    def forward(self, x):
        return self.last(checkpoint(lambda h: self.first(h).tanh(), x, use_reentrant=False))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.head = layer(6, 6), layer(6, 3)

    def forward(self, x):
        return self.head(self.shared(torch.tanh(self.shared(x))))


MODELS = {
    "one": lambda: layer(6, 3),
    "deep": lambda: nn.Sequential(layer(6, 9), nn.ReLU(), nn.LayerNorm(9), layer(9, 3)),
    "one input": lambda: nn.Sequential(layer(6, 1), layer(1, 3)),
    "twice": Twice,
    "checkpointed": Checkpointed,
    "on every step of a sequence": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), layer(3, 5), nn.Tanh(), nn.Flatten(), layer(10, 3)
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frozen", ["", "weight_v", "weight_g", "bias"])
def test_sums_are_those_of_float64_autograd_one_example_at_a_time(name, frozen):
    model = MODELS[name]()
    for key, p in model.named_parameters():
        p.requires_grad_(not frozen or not key.endswith(frozen))
    data = rows(7, 6), torch.arange(7) % 3
    assert error_of_the_clipped_sum(model, data, "graph") < 3e-5  # norms are told a little larger
    assert error_of_the_clipped_sum(model.double(), (data[0].double(), data[1]), "graph") < 1e-13


def test_nothing_is_written_out_and_no_weight_gradient_is_computed(monkeypatch):
    monkeypatch.setattr(Projected, "written", None)
    monkeypatch.setattr(Outer, "written", None)
    model, data = MODELS["deep"](), (rows(7, 6), torch.arange(7) % 3)
    told = []
    backward = WeightNormProduct.backward

    def spied(ctx, delta):
        found = backward(ctx, delta)
        told.append([g is not None for g in found])
        return found

    monkeypatch.setattr(WeightNormProduct, "backward", staticmethod(spied))
    assert engine_sum(model, data, "graph", 1.0).norm() > 0
    assert [True, False, False, False] in told


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_one_person_are_clipped_as_one(weighted):
    model, data = MODELS["deep"](), (rows(6, 6), torch.arange(6) % 3)
    slots = torch.tensor([0, 0, 1, 2, 2, 2])
    weights = torch.tensor([0.5, 0.5, 1.0, 0.25, 0.5, 0.25]) if weighted else None
    alone = gradients_alone(model, data)
    scaled = alone if weights is None else alone * weights[:, None].double()
    together = torch.zeros(3, alone.shape[1]).double().index_add_(0, slots, scaled)
    engine = GraphGradients(model)
    engine.backward(per_example(nn.CrossEntropyLoss()), *data)
    vectors = engine.vectors(list(model.parameters()), slots, weights)
    torch.testing.assert_close(vectors.norms.double(), together.norm(dim=1), rtol=1e-5, atol=0)
    clip = float(vectors.norms.median())
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    vectors.add_to(sums, (clip / vectors.norms).clamp(max=1.0))
    wanted = clipped(together, clip)
    found = torch.cat([total.flatten() for total in sums])
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_norm_is_never_too_small_where_all_of_the_gradient_lies_along_v(scale):
    """Inputs along v: of δ² ‖x‖² − ∂g² nothing is left but rounding, in norm and sum alike."""
    made = layer(2000, 3)
    x = scale * made.weight_v.detach() * torch.tensor([[1.0], [3.0], [-2.0]])
    made.weight_g.requires_grad_(False), made.bias.requires_grad_(False)
    engine = GraphGradients(made)
    engine.backward(per_example(lambda out, y: (out * y).sum(1)), x, torch.ones(3, 1))
    vectors = engine.vectors([made.weight_v])
    for i in range(3):
        sums = [torch.zeros_like(made.weight_v, dtype=torch.float64)]
        vectors.add_to(sums, torch.eye(3)[i], 1.0)
        norm = float(vectors.norms[i])
        assert float(sums[0].norm()) <= norm * (1 + 1e-6)
        assert norm == pytest.approx(vectors.norm(i), rel=1e-4)


def test_a_whole_sum_in_float32_is_off_by_no_more_than_it_says():
    a, b = rows(600, 1, 200), rows(600, 1, 300)
    direction = nn.functional.normalize(rows(200, 300))
    part = Projected(Outer(a, b), b @ direction.T, direction)
    factors = torch.rand(600, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact, none = part.total(factors, 0.0)
    assert (exact.dtype, none) == (torch.float64, 0.0)
    for within in (1e-9, 1e-3, 10.0):
        found, error = part.total(factors, within)
        assert float((found.double() - exact).norm()) <= error**0.5 + 1e-12 <= within + 1e-12
        assert (found.dtype == torch.float32) == (within == 10.0)


@pytest.mark.parametrize("shape", [(7, 6), (2, 4, 6), (6,)], ids=str)
def test_the_node_is_what_the_operations_are_to_second_order(shape):
    made, x = layer(6, 3).double(), rows(*shape).double().requires_grad_()
    plain = copy.deepcopy(made)
    plain.projection.register_forward_hook(lambda *_: None)
    found = []
    for one, name in ((made, ONE_NODE), (plain, "AddBackward0")):
        y, inputs = one(x), [x, *one.parameters()]
        assert y.grad_fn.name() == name
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append([y, *first, *second])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_where_something_else_looks_on_the_layer_is_plain_operations():
    made, x = layer(6, 3), rows(5, 6)
    assert made(x).grad_fn.name() == ONE_NODE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(x).grad_fn.name() != ONE_NODE
    with torch.no_grad():
        assert made(x).grad_fn is None
    held = dict(made.named_parameters())

    def loss(params, row):
        return torch.func.functional_call(made, params, (row,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(held, x)
    wanted = torch.autograd.grad(made(x).square().sum(), list(held.values()))
    for name, gradient in zip(held, wanted, strict=True):
        torch.testing.assert_close(each[name].sum(0), gradient, rtol=1e-4, atol=1e-4)
    program = torch.export.export(made, (x,))
    torch.testing.assert_close(program.module()(x), made(x))
    assert "WeightNorm" not in program.graph_module.code
