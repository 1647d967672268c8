"""Models of many kinds of layers by the graph engine: one example at a time decides."""

import pytest
import torch
from gradient_oracle import clipped, error_of_the_clipped_sum, gradients_alone
from refused import refused
from small_problem import make_trainer, small_data
from torch import nn

from dpsgd_torch import Privacy
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.parts import Outer, Written
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.layers import WeightNormLinear

EXACT = 5e-6  # in float32, whose rounding is added to norms
ROWS, STEPS, WORDS, WIDTH = 9, 4, 7, 6
LOSS = per_example(nn.CrossEntropyLoss())


class Own(nn.Module):
    """A user's layer: raw parameters, for which nobody wrote a rule."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.mix = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width, 2))

    def forward(self, x):
        return torch.cat([x * self.gate.sigmoid(), (x.square() @ self.mix).tanh()], -1)


class Mixed(nn.Module):
    """Words and a picture: embedding, sequences, convolution, norms, a tied layer, one's own."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.steps = nn.Linear(WIDTH, 2 * WIDTH)  # (batch, time, features)
        self.short = nn.Linear(2 * WIDTH, 1, bias=False)
        self.norm = nn.LayerNorm(2 * WIDTH)
        self.picture = nn.Conv1d(STEPS, 3, 3, padding=1, padding_mode="circular")
        self.weight_norm = WeightNormLinear(6 * WIDTH + STEPS, 20)
        self.own = Own(20)
        self.twice = nn.Linear(22, 22)
        self.last = nn.Linear(22, 4)

    def forward(self, tokens):
        x = self.norm(self.steps(self.words(tokens))).relu()
        seen = torch.cat([self.picture(x).flatten(1), self.short(x).flatten(1)], 1)
        x = self.own(self.weight_norm(seen).tanh())
        return self.last(self.twice(self.twice(x).tanh()).tanh())


def mixed_model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mixed()


def some_words(rows: int = ROWS):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(WORDS, (rows, STEPS), generator=generator)
    return x, torch.randint(4, (rows,), generator=generator)


def mixed_vectors(model, data, slots=None, weights=None, loss=LOSS):
    engine = GraphGradients(model)
    try:
        engine.backward(loss, *data)
        return engine.vectors(list(model.parameters()), slots, weights)
    finally:
        engine.cleanup()


def sum_of(model, vectors, factors):
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    vectors.add_to(sums, factors)
    return torch.cat([total.flatten() for total in sums])


@pytest.mark.parametrize("seed", range(3))
def test_norms_sums_and_single_vectors_are_autograds(seed):
    model, data = mixed_model(seed), some_words()
    expected = gradients_alone(model, data)
    norms = expected.norm(dim=1)
    vectors = mixed_vectors(model, data)
    assert float(((vectors.norms.double() - norms) / norms).abs().max()) < EXACT
    assert error_of_the_clipped_sum(model, data, "graph") < EXACT
    third = torch.cat(vectors.vector(3))
    assert float((third - expected[3]).norm() / expected[3].norm()) < 1e-6
    assert vectors.norm(3) == pytest.approx(float(norms[3]), rel=1e-6)


SHARED = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3])


def test_rows_of_one_slot_add_up_over_all_layers_before_the_norm_is_taken():
    model, data = mixed_model(), some_words()
    weights = (1 / torch.bincount(SHARED))[SHARED]
    rows = gradients_alone(model, data) * weights[:, None].double()
    expected = torch.zeros(4, rows.shape[1]).double().index_add_(0, SHARED, rows)
    vectors = mixed_vectors(model, data, SHARED, weights)
    error = (vectors.norms.double() - expected.norm(dim=1)) / expected.norm(dim=1)
    assert float(error.min()) > -1e-6
    assert float(error.max()) < 1e-5  # pairs may cancel, so it is kept above
    factors = torch.tensor([0.5, 0.0, 1.0, 0.7])
    wanted = factors.double() @ expected
    assert float((sum_of(model, vectors, factors) - wanted).norm() / wanted.norm()) < 1e-6
    assert vectors.norm(3) == pytest.approx(float(expected[3].norm()), rel=1e-6)
    last = torch.cat(vectors.vector(3))
    assert float((last - expected[3]).norm() / expected[3].norm()) < 1e-6


@pytest.mark.parametrize("slots", [None, SHARED])
@pytest.mark.parametrize("where", ["linear", "convolution"])
def test_an_example_that_is_not_finite_in_one_layer_counts_as_zero_in_all(where, slots):
    """The example's squares overflow in one of two layers."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.convolution = nn.Linear(5, 4), nn.Conv1d(1, 4, 5)

        def forward(self, x):
            return self.linear(x[:, :5]) + self.convolution(x[:, None, 5:]).flatten(1)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Two().double()
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(ROWS, 10, generator=generator, dtype=torch.float64), some_words()[1]
    hurt = x.clone()
    hurt[1, 0 if where == "linear" else 9] = 1e200  # its loss is finite, its squares are not
    vectors = mixed_vectors(model, (hurt, y), slots)
    factors = torch.ones(len(vectors.norms)).where(torch.isfinite(vectors.norms), 0.0)
    kept = [i for i in range(ROWS) if i != 1]
    wanted = gradients_alone(model, (x[kept], y[kept])).sum(0)
    got = sum_of(model, vectors, factors)
    assert float((got - wanted).norm() / wanted.norm()) < EXACT


SEQUENCES = {
    "linear": lambda: nn.Linear(12, 40),
    "without bias": lambda: nn.Linear(12, 40, bias=False),
    "deeper": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(12, 40), nn.Flatten(1, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_linear_layer_over_steps_is_right(kind, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(SEQUENCES[kind](), nn.Tanh(), nn.Flatten(), nn.Linear(160, 4))
    model, y = model.to(dtype), some_words()[1]
    x = torch.randn(ROWS, 4, 12, generator=torch.Generator().manual_seed(2), dtype=dtype)
    assert error_of_the_clipped_sum(model, (x, y), "graph") < EXACT


def test_steps_that_cancel_leave_the_norm_right():
    """Two steps of opposite gradient: products of float32 would leave noise of the first."""
    layer = nn.Linear(50, 20)
    step = torch.randn(3, 1, 50, generator=torch.Generator().manual_seed(0))
    x = torch.cat([step, step * (1 + 1e-4)], 1)
    opposite = per_example(lambda out, _: (out[:, 0] - out[:, 1]).sum(1))
    data = (x, torch.zeros(3))
    expected = gradients_alone(layer, data, opposite).norm(dim=1)
    vectors = mixed_vectors(layer, data, loss=opposite)
    assert torch.allclose(vectors.norms.double(), expected, rtol=1e-6)


@pytest.mark.parametrize("more", [{}, {"padding_idx": 0}, {"padding_idx": -1}])
@pytest.mark.parametrize("slots", [None, SHARED])
def test_an_embedding_is_right_with_rows_that_share_a_slot(more, slots):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(WORDS, 5, **more), nn.Flatten(), nn.Linear(20, 4))
    data = some_words()
    rows = gradients_alone(model, data)
    expected = rows if slots is None else torch.zeros(4, rows.shape[1]).double()
    if slots is not None:
        expected.index_add_(0, slots, rows)
    vectors = mixed_vectors(model, data, slots)
    assert torch.allclose(vectors.norms.double(), expected.norm(dim=1), rtol=1e-5)
    factors = torch.linspace(0.1, 1, len(expected))
    wanted = factors.double() @ expected
    assert float((sum_of(model, vectors, factors) - wanted).norm() / wanted.norm()) < EXACT
    assert vectors.norm(2) == pytest.approx(float(expected[2].norm()), rel=1e-6)


def test_a_mixed_model_trains_and_clips_as_with_stored_gradients(monkeypatch):
    monkeypatch.setattr(PartVectors, "margin", Stored.margin)
    data = some_words(60)
    weights = []
    for kind in ("graph", "opacus"):
        model = mixed_model()
        privacy = Privacy(noise_multiplier=1e-4, delta=1e-3, clip_norm=0.5)  # another's, each
        trainer = make_trainer(model=model, data=data, gradients=kind, privacy=privacy).fit()
        assert (trainer.gradients, trainer.done) == (kind, 15)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*weights, atol=1e-4)


@pytest.mark.parametrize("planted", ["sum", "norm", "gradient"])
def test_a_wrong_part_is_caught_in_a_mixed_model(monkeypatch, planted):
    add_to, norms, written = Outer.add_to, Outer.squared_norms, Written.__init__

    def wrong_sum(self, total, factors, within):
        error = add_to(self, total, factors, within)
        total *= 0.9
        return error

    def wrong_norm(self):
        squared, error = norms(self)
        return squared / 4, error

    def wrong_gradient(self, gradients):
        written(self, 0.9 * gradients if len(gradients) > 1 else gradients)

    model = nn.Sequential(nn.Flatten(), Own(36), nn.Linear(38, 3))
    if planted == "gradient":
        monkeypatch.setattr(Written, "__init__", wrong_gradient)
        refused(r"parameter .*: .*do not add up", model=model)
    elif planted == "sum":
        monkeypatch.setattr(Outer, "add_to", wrong_sum)
        refused(r"parameter .*: its per-example gradients do not add up", model=model)
    else:
        monkeypatch.setattr(Outer, "squared_norms", wrong_norm)
        refused(r"parameter .*: a norm is 0\.\d+ of its vector's", model=model)


def test_real_examples_are_held_against_autograd_in_a_mixed_model():
    model = nn.Sequential(nn.Flatten(), Own(36), nn.Linear(38, 3))
    assert make_trainer(model=model, gradients="graph", data=small_data()).fit().done == 30


def test_the_oracle_clips_as_it_says():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    assert torch.allclose(clipped(rows, 1.0), torch.tensor([0.9, 1.2]).double())
