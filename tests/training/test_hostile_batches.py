"""Batches in which one example tries to reach another's vector, or to be longer than the clip."""

import math

import numpy as np
import pytest
import torch
from gradient_oracle import LOSS, gradients_alone
from torch import nn
from torch.nn import functional

from dpsgd_torch import ModelError
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.parts.convolution import Convolution
from dpsgd_torch.gradients.parts.patches import Geometry
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer

ROWS, STEPS, WIDTH = 4, 3, 6
SUM = per_example(lambda outputs, targets: outputs.sum(1))


def vectors_of(model, inputs, targets, loss=LOSS, engine=None, **slots):
    engine = engine or GraphGradients(model)
    engine.backward(loss, inputs, targets)
    return engine.vectors([p for p in model.parameters() if p.requires_grad], **slots)


def some_rows(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.arange(shape[0]) % 3


class Solved(nn.Module):
    """Examples are columns of what an operation without a rule saves."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(WIDTH) + 0.1)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(torch.linalg.solve(self.matrix, x.exp().T).T)


def test_an_infinite_example_leaves_the_others_vectors_of_a_node_without_a_rule_alone():
    model, (inputs, targets) = Solved(), some_rows(ROWS, WIDTH)
    clean = vectors_of(model, inputs, targets)
    inputs[2] = 200.0  # its exponential is infinite
    poisoned = vectors_of(model, inputs, targets)
    assert not math.isfinite(poisoned.norms[2])
    for row in (0, 1, 3):
        for one, other in zip(clean.vector(row), poisoned.vector(row), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert not any(part.any() for part in poisoned.vector(2))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("model", [Scaled(), nn.Linear(1, 1, bias=False)], ids=["written", "outer"])
def test_a_unit_whose_sum_overflows_counts_as_zero_and_leaves_the_sum_finite(model):
    inputs, targets = torch.tensor([[2e38], [2e38], [3.0], [1.0]]), torch.zeros(4, 1)
    slots, weights = torch.tensor([0, 0, 1, 1]), torch.ones(4)
    vectors = vectors_of(model, inputs, targets, SUM, slots=slots, weights=weights)
    optimizer = PrivateOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), microbatches=2)
    optimizer.begin(StepPlan(1.0, 0.0), np.random.default_rng(0))
    assert optimizer.accumulate(vectors).numel() == 1
    assert 0.99 < float(optimizer.sums[0]) <= 1.0


def test_a_huge_vector_is_clipped_to_a_small_norm_in_the_factors_own_precision():
    model, clip = nn.Linear(1, 1, bias=False), 1e-5  # C / norm has 5 bits left in float32
    vectors = vectors_of(model, torch.tensor([[3e38], [2.7e38]]), torch.zeros(2, 1), SUM)
    optimizer = PrivateOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), microbatches=2)
    optimizer.begin(StepPlan(clip, 0.0), np.random.default_rng(0))
    optimizer.accumulate(vectors)
    assert 2 * 0.997 * clip < float(optimizer.sums[0]) <= 2 * clip


def test_a_unit_whose_many_equal_terms_round_one_way_is_no_longer_than_its_norm():
    rows, places, value = 2000, 4, 0.7071  # in float32 its norm is 3e-4 too small
    x = torch.full((rows, 1, 512, places), value)
    one = Convolution(x, 0.9 * x, Geometry((3,), (1,), (1,), (1,), 1))
    unit = one.grouped(torch.zeros(rows, dtype=torch.long), None, 1)
    squared, lost = unit.squared_norms()
    inner, edge = rows * places, rows * (places - 1)  # patches under a tap
    true = 512**2 * (float(x[0, 0, 0, 0]) * float((0.9 * x)[0, 0, 0, 0])) ** 2
    true *= inner**2 + 2 * edge**2
    assert 0 <= float(squared.double() + lost.double()) / true - 1 < 1e-6


class Packed(nn.Module):
    """Tokens that a mask leaves go through a layer side by side, and back to their places."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer, self.head = how, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x, kept):
        if self.how == "sorted":
            order = kept.sum(1).argsort(stable=True)
            return self.head(self.layer(x[order]).tanh()[order.argsort()].sum(1))
        if self.how == "rolled":
            away = int(kept.logical_not().sum()) // 4
            return self.head(self.layer(x.roll(away, 0)).tanh().roll(-away, 0).sum(1))
        if self.how == "turned":
            if kept.all():
                return self.head(self.layer(x).tanh().sum(1))
            return self.head(self.layer(x.flip(0)).tanh().flip(0).sum(1))
        tokens = self.layer(x[kept]).tanh()
        whose = kept.nonzero()[:, 0]
        if self.how == "put":
            back = torch.zeros_like(x).index_put((kept,), tokens).sum(1)
        elif self.how == "added":
            back = torch.zeros_like(x[:, 0]).index_add(0, whose, tokens)
        elif self.how == "split":
            back = torch.stack([part.sum(0) for part in tokens.split(kept.sum(1).tolist())])
        elif self.how == "bags":
            ends, places = kept.sum(1).cumsum(0), torch.arange(len(tokens))
            back = functional.embedding_bag(places, tokens, ends - kept.sum(1), mode="sum")
        else:
            there = functional.one_hot(whose, len(x)).to(tokens)
            back = there.T @ tokens
        return self.head(back)


@pytest.mark.parametrize(
    "how", ["put", "added", "product", "split", "bags", "sorted", "rolled", "turned"]
)
def test_rows_that_move_only_in_a_later_batch_are_refused_there(how):
    model, (x, targets) = Packed(how), some_rows(ROWS, STEPS, WIDTH)
    engine, kept = GraphGradients(model), torch.ones(ROWS, STEPS, dtype=torch.bool)
    vectors = vectors_of(model, {"x": x, "kept": kept}, targets, engine=engine)
    assert torch.isfinite(vectors.norms).all()
    kept[0, 0] = kept[1, 1:] = kept[3, 0] = False  # 8 tokens, two an example in the mean
    with pytest.raises(ModelError, match="not the examples in their order"):
        vectors_of(model, {"x": x, "kept": kept}, targets, engine=engine)


class LastOfEach(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        last = (x[..., 0] > 0).sum(1).clamp(max=STEPS - 1)
        return self.head(self.layer(x)[torch.arange(len(x)), last])


class Middle(nn.Module):
    """Steps first, and no gradient but to one step of three."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        steps = x.transpose(0, 1)
        flat = self.layer(steps.reshape(-1, WIDTH))
        return self.head(flat.view(steps.shape)[steps.shape[0] // 2])


@pytest.mark.parametrize("model", [LastOfEach(), Middle()], ids=lambda m: type(m).__name__)
def test_rows_that_are_chosen_and_stay_in_their_order_are_told_apart(model):
    data = some_rows(ROWS, STEPS, WIDTH)
    vectors, wanted = vectors_of(model, *data), gradients_alone(model, data)
    given = torch.stack([torch.cat(vectors.vector(row)) for row in range(ROWS)])
    assert torch.allclose(given, wanted, rtol=1e-4, atol=1e-6)
