"""Autocast in a loop of one's own: half precision in the pass, none in norms, clip and sums."""

import copy

import pytest
import torch
from own_loops import looped, make_private, trained
from small_problem import small_data, small_model, weights
from torch import nn
from torch.nn.functional import cross_entropy

from dpsgd_torch import Privacy
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.training.private_optimizer import PrivateOptimizer

HALF = torch.bfloat16


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer(self.embedding(x)).mean(1))


def images():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.LayerNorm(16), nn.Linear(16, 3))
    return dense, small_data(24)


def tokens():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Attends(), (torch.randint(20, (24, 7)), torch.randint(3, (24,)))


def convolved():
    return small_model(), small_data(24)


@pytest.mark.parametrize("problem", [images, convolved, tokens])
def test_vectors_are_float64s_within_half_precision_and_norms_are_the_vectors(problem):
    model, (inputs, targets) = problem()
    model.eval()
    exact = copy.deepcopy(model).double()
    params = list(model.parameters())

    def forward(model, inputs):
        with torch.autocast("cpu", HALF):
            return model(inputs)

    engine = GraphGradients(model, forward=forward)
    engine.backward(lambda o, t: cross_entropy(o.float(), t, reduction="none"), inputs, targets)
    vectors = engine.vectors(params)
    engine.cleanup()
    for row in range(len(inputs)):
        x = inputs[row : row + 1]
        loss = cross_entropy(exact(x.double() if x.is_floating_point() else x), targets[[row]])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, exact.parameters())])
        given = torch.cat(vectors.vector(row))
        assert float((given - gradient).norm()) < 0.05 * float(gradient.norm())
        assert float(vectors.norms[row]) >= float(given.norm()) * (1 - vectors.margin)
        assert float(vectors.norms[row]) == pytest.approx(float(given.norm()), rel=1e-4)


@pytest.mark.parametrize("within", [False, True], ids=["forward alone", "the whole body"])
def test_one_example_moves_the_sum_by_no_more_than_the_clip(monkeypatch, within):
    """A norm or a sum in half precision, which is off by up to 2⁻⁸, would show."""
    sums, honest = [], PrivateOptimizer.add_noise

    def add_noise(optimizer):
        sums.append(torch.cat([part.double().flatten() for part in optimizer.sums]))
        honest(optimizer)

    monkeypatch.setattr(PrivateOptimizer, "add_noise", add_noise)
    private = make_private(
        loss=None,
        batch_size=1,
        epochs=0.2,
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1e-3),
    )
    counts = [0] * private.sampling.steps

    def body(batch):
        with torch.autocast("cpu", HALF):
            losses = cross_entropy(private.model(batch.inputs), batch.targets, reduction="none")
            if within:
                private.backward(losses)
                private.step()
        if not within:
            private.backward(losses)
            private.step()
        if not batch.rehearsal:
            counts[batch.step] += len(batch.indices)

    looped(private, body)
    alone = [float(total.norm()) for total, count in zip(sums, counts, strict=True) if count == 1]
    assert len(alone) > 3
    assert alone == pytest.approx([1e-3 * (1 - PartVectors.margin)] * len(alone), rel=1e-5)


def test_a_run_under_autocast_is_near_the_run_without():
    def trained_as(forward):
        privacy = Privacy(noise_multiplier=1e-3, delta=1e-3, clip_norm=0.5)
        private = make_private(privacy=privacy, epochs=1, loss=None)
        losses = lambda m, b: cross_entropy(forward(m, b.inputs), b.targets, reduction="none")  # noqa: E731
        return weights(trained(private, losses=losses).model)

    def half(model, inputs):
        with torch.autocast("cpu", HALF):
            return model(inputs).float()

    whole, cast = trained_as(lambda model, inputs: model(inputs)), trained_as(half)
    start = weights(small_model())
    assert 0 < float((cast - whole).norm()) < 0.1 * float((whole - start).norm())
