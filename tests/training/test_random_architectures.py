"""Random architectures: each example's gradient is autograd's, or the model is refused by name."""

import os
from collections import Counter

import pytest
import torch
from gradient_oracle import LOSS, clipped, gradients_alone
from hypothesis import assume, given, note, settings
from random_architectures import architectures
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.methods import per_example_gradients

EXACT = 1e-6
ENGINE = "graph"
DRAWS = 500 if os.environ.get("CI") else 60
MOST_REFUSED = 0.01  # of the draws; of 1,500 none was


def outcome(model: nn.Module, data) -> str:
    """ "equal", "refused" or "wrong: …" of the engine, held against the oracle."""
    rows = rows_of_the_oracle(model, data)
    names = [name for name, _ in model.named_parameters()]
    try:
        said = difference(model, data, rows)
    except ModelError as error:
        named = any(name in str(error) for name in [*names, *paths(model)])
        return "refused" if named else f"wrong: names nothing: {error}"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return f"wrong: {said}" if said else "equal"


def rows_of_the_oracle(model, data) -> torch.Tensor:
    """Autograd one example at a time; a model that autograd itself cannot do is no model."""
    try:
        rows = gradients_alone(model, data)
    except RuntimeError:  # what a step in place overwrote was needed
        assume(False)
    assume(bool(rows.isfinite().all()) and float(rows.norm(dim=1).min()) > 1e-6)
    return rows


def difference(model, data, rows) -> str:
    """In what the engine's norms or clipped sum differ from the oracle's, if they do."""
    params = list(model.parameters())
    norms, clip = rows.norm(dim=1), float(rows.norm(dim=1).median())
    with per_example_gradients(model, ENGINE) as engine:
        engine.backward(LOSS, *data)
        vectors = engine.vectors(params)
        sums = [torch.zeros(p.shape, dtype=torch.float64) for p in params]
        found = vectors.norms.double()
        vectors.add_to(sums, (clip / norms).clamp(max=1.0))
    if not torch.allclose(found, norms, rtol=EXACT, atol=0.0):
        return f"norms off by {float((found / norms - 1).abs().max()):.1e}"
    wanted, given = clipped(rows, clip), torch.cat([total.flatten() for total in sums])
    off = float((given - wanted).norm() / rows.norm(dim=1).clamp(max=clip).sum())
    return f"sum off by {off:.1e}" if not off < EXACT else ""


def paths(model) -> list[str]:
    return [f"layer {path}" for path, _ in model.named_modules() if path]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_a_random_architecture_is_right_or_refused_by_name():
    seen = Counter()

    @settings(max_examples=DRAWS, deadline=None, derandomize=True, database=None)
    @given(architectures())
    def right_or_refused(drawn):
        model, data, names = drawn
        note(f"{names}\n{model}")
        found = outcome(model, data)
        seen[found.partition(":")[0]] += 1
        assert not found.startswith("wrong"), found

    right_or_refused()
    assert seen["refused"] <= MOST_REFUSED * seen.total()


class Doubled(torch.autograd.Function):
    """A backward pass that is twice what it should be where examples come alone."""

    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, delta):
        return delta * (2.0 if len(delta) == 1 else 1.0)


def test_a_planted_wrong_gradient_is_told():
    class Planted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return Doubled.apply(self.layer(x))

    data = torch.randn(4, 5, dtype=torch.float64), torch.randint(3, (4,))
    model = Planted().double()
    assert difference(model, data, gradients_alone(model, data)).startswith("norms off")
    plain = model.layer
    assert difference(plain, data, gradients_alone(plain, data)) == ""
