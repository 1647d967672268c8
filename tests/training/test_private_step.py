"""The private step against an oracle of one backward pass an example."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from small_problem import small_data, small_model, weights
from torch import nn

from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.mechanisms.gaussian import fill_normal
from dpsgd_torch.noise import independent
from dpsgd_torch.privacy.plan import StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep

CLIP = 0.5
LOSS = per_example(nn.CrossEntropyLoss())


def released(
    model, data, batch, *, slots=None, microbatch_size=1, declared=10, noise=0.0, physical=4, seed=0
):
    """The gradient that one private step hands to the optimizer."""
    model.eval()
    for layer in model.modules():
        layer.training = not isinstance(layer, nn.Dropout)
    optimizer = PrivateOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), microbatches=declared)
    wrapped = OpacusGradients(model)
    step = PrivateStep(
        wrapped,
        LOSS,
        optimizer,
        physical_batch_size=physical,
    )
    before = weights(model)
    batch = np.asarray(batch, dtype=np.int64)
    slots = np.arange(batch.size) if slots is None else np.asarray(slots)
    generator = np.random.default_rng(seed)
    weights_in_slot = None
    if microbatch_size > 1:
        weights_in_slot = np.full(batch.size, 1 / microbatch_size, np.float32)
    try:
        step(InMemory(*data), StepPlan(CLIP, noise), Draw(batch, slots, generator, weights_in_slot))
    finally:
        wrapped.cleanup()
    return before - weights(model)


def oracle(model, data, groups, size):
    """Sum over groups of the clipped mean gradient, each example on its own."""
    total = torch.zeros_like(weights(model))
    for group in groups:
        mean = torch.zeros_like(total)
        for i in group:
            model.zero_grad()
            LOSS(model(data[0][i : i + 1]), data[1][i : i + 1]).sum().backward()
            mean += torch.cat([p.grad.flatten() for p in model.parameters()]) / size
        total += mean * min(1.0, CLIP / float(mean.norm()))
    return total


@pytest.fixture
def model():
    model = small_model()
    model[3].p = 0.0
    return model


@pytest.mark.parametrize("physical", [1, 4, 100])
def test_the_sum_is_that_of_examples_clipped_alone_whatever_the_physical_batch(model, physical):
    data = small_data()
    expected = oracle(small_model().eval(), data, [[i] for i in range(9)], 1) / 10
    got = released(model, data, range(9), physical=physical)
    assert torch.allclose(got, expected, atol=1e-5 * float(expected.norm()))


class Twice(nn.Module):
    """One layer used twice in a pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(36, 36), nn.Linear(36, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x.flatten(1))))))


def test_a_layer_used_twice_gets_the_gradients_of_both_uses():
    model, data = Twice(), small_data()
    expected = oracle(model, data, [[i] for i in range(9)], 1) / 10
    got = released(model, data, range(9))
    assert torch.allclose(got, expected, atol=1e-5 * float(expected.norm()))


@pytest.mark.parametrize("physical", [1, 3, 100])
def test_a_microbatch_is_averaged_over_its_declared_size_then_clipped(model, physical):
    data = small_data()
    slots = [0, 2, 0, 1, 2, 2, 0]
    groups = [[0, 2, 6], [3], [1, 4, 5]]
    expected = oracle(small_model().eval(), data, groups, 3) / 5
    got = released(
        model, data, range(7), slots=slots, microbatch_size=3, declared=5, physical=physical
    )
    assert torch.allclose(got, expected, atol=1e-5 * float(expected.norm()))


def test_the_divisor_is_the_declared_one_also_when_nobody_came(model):
    assert released(model, small_data(), [], declared=10).abs().max() == 0
    one = released(small_model(), small_data(), [3], declared=10)
    assert float(one.norm()) <= CLIP / 10 * (1 + 1e-5)


def test_an_empty_batch_still_adds_noise(model):
    noise = released(model, small_data(), [], noise=2.0, declared=10) * 10
    assert float(noise.std()) == pytest.approx(2.0 * CLIP, rel=0.15)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("slots", [None, [0, 1, 2, 3, 0]])
def test_a_non_finite_gradient_contributes_nothing(poison, slots):
    data = small_data()
    size = 1 if slots is None else 2
    clean = released(small_model(), data, range(4), slots=slots and slots[:4], microbatch_size=size)
    data[0][4] = poison
    got = released(small_model(), data, range(5), slots=slots, microbatch_size=size)
    assert torch.isfinite(got).all()
    if math.isfinite(poison):
        assert float((got - clean).norm()) <= CLIP / 10 * (1 + 1e-5)
    else:
        assert torch.allclose(got, clean, atol=1e-8)


@pytest.mark.parametrize("size", [26_000, 1_000_000])
@pytest.mark.parametrize("kind", ["constant", "gaussian", "spiky"])
def test_large_vectors_are_clipped_in_truth_not_only_in_float32(size, kind):
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(2, size, generator=generator)
    gradient = {"constant": torch.ones(2, size), "gaussian": gradient, "spiky": gradient**5}[kind]
    parameter = nn.Parameter(torch.zeros(size))
    optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), microbatches=1)
    optimizer.begin(StepPlan(CLIP, 1.0), np.random.default_rng(0))
    parameter.grad_sample = gradient[:1].clone()
    optimizer.accumulate(Stored([parameter]))
    assert CLIP * (1 - 1e-4) < float(optimizer.sums[0].norm()) <= CLIP


def has_deviation(noise: torch.Tensor, std: float) -> bool:
    """Two-sided chi-square test, one false alarm in a million."""
    energy = float(noise.double().square().sum()) / std**2
    law = stats.chi2(noise.numel())
    return bool(law.ppf(5e-7) < energy < law.isf(5e-7))


def drawn_noise(scale: float = 1.0) -> torch.Tensor:
    return torch.cat(
        [
            released(small_model(), small_data(), [], noise=1.3 * scale, declared=10, seed=s) * 10
            for s in range(30)
        ]
    )


def test_the_noise_is_the_planned_one():
    noise = drawn_noise()
    assert has_deviation(noise, 1.3 * CLIP)
    assert stats.kstest(noise.numpy() / (1.3 * CLIP), "norm").pvalue > 1e-6


@pytest.mark.parametrize("planted", [2 / 3, 3 / 2, 0.9, 1.1])
def test_the_same_test_rejects_other_noise(planted):
    assert not has_deviation(drawn_noise(planted), 1.3 * CLIP)


@pytest.mark.parametrize("planted", [0.0, 0.5, 2 / 3, 3 / 2])
def test_every_step_notices_noise_that_is_not_the_planned_one(monkeypatch, model, planted):
    def too_little(rng, out):
        fill_normal(rng, out)
        out *= planted

    monkeypatch.setattr(independent, "fill_normal", too_little)
    with pytest.raises(GuaranteeBroken, match="noise energy"):
        released(model, small_data(), range(5), noise=1.0)


def test_every_step_notices_a_clip_that_was_not_applied(monkeypatch, model):
    honest = PrivateOptimizer.accumulate

    def twice_the_clip(self, *args):
        planned, self.clip_norm = self.clip_norm, 2 * self.clip_norm
        try:
            return honest(self, *args)
        finally:
            self.clip_norm = planned

    monkeypatch.setattr(PrivateOptimizer, "accumulate", twice_the_clip)
    with pytest.raises(GuaranteeBroken, match="norm of the sum"):
        released(model, small_data(), [4], noise=1.0)


def test_nothing_is_released_when_a_claim_fails(monkeypatch, model):
    monkeypatch.setattr(independent, "fill_normal", lambda rng, out: out.fill(0.0))
    before = weights(model).clone()
    with pytest.raises(GuaranteeBroken):
        released(model, small_data(), range(5), noise=1.0)
    assert torch.equal(weights(model), before)
