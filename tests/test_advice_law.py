"""The trainings that the laws of advice rest on take the sums that the engine takes."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import advice
import advice_grid
import advice_networks

ROWS, FEATURES, CLASSES, HIDDEN = 30, 7, 4, 5


def rows():
    drawn = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (ROWS,), generator=drawn)
    return torch.randn(ROWS, FEATURES, generator=drawn), labels


def by_the_engine(model):
    """Σ of gradients clipped to norm 1, a tensor a parameter."""
    params = list(model.parameters())
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in params]
    with per_example_gradients(model, "graph") as engine:
        engine.backward(per_example(nn.CrossEntropyLoss()), *rows())
        vectors = engine.vectors(params)
        vectors.add_to(sums, (1 / vectors.norms.double()).clamp(max=1.0))
    return [total.float() for total in sums]


def put(layer, weights):
    with torch.no_grad():
        layer.weight.copy_(weights[:, :-1])
        layer.bias.copy_(weights[:, -1])


def test_heads_clip_and_sum_as_the_engine_does():
    inputs, labels = rows()
    inputs = advice_networks.with_one(inputs)
    weights = torch.randn(2, CLASSES, FEATURES + 1, generator=torch.Generator().manual_seed(1)) / 9
    targets = nn.functional.one_hot(labels, CLASSES).float()
    found = advice_grid.clipped_sums(weights, inputs, targets, inputs.norm(dim=1))
    for one, total in zip(weights, found, strict=True):
        put(head := nn.Linear(FEATURES, CLASSES), one)
        weight, bias = by_the_engine(head)
        expected = torch.cat([weight, bias[:, None]], 1)
        assert torch.allclose(total, expected, rtol=2e-6, atol=1e-5)


def test_networks_clip_and_sum_as_the_engine_does():
    inputs, labels = rows()
    drawn = torch.Generator().manual_seed(1)
    first = torch.randn(2, HIDDEN, FEATURES + 1, generator=drawn)
    second = torch.randn(2, CLASSES, HIDDEN + 1, generator=drawn)
    targets = nn.functional.one_hot(labels, CLASSES).float()
    sums = advice_networks.clipped(first, second, advice_networks.with_one(inputs), targets)
    for i in range(2):
        model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
        put(model[0], first[i])
        put(model[2], second[i])
        found = by_the_engine(model)
        for total, weight, bias in zip(sums, found[::2], found[1::2], strict=True):
            expected = torch.cat([weight, bias[:, None]], 1)
            assert torch.allclose(total[i], expected, rtol=2e-6, atol=1e-5)


def test_a_law_is_found_again_in_what_it_made_and_an_error_in_it_is_told():
    cells = []
    for n in (500, 2000, 8000):
        for kappa in (1e-4, 1e-3, 1e-2):
            for parameters, steps in ((100, 20), (100, 60), (4000, 60)):
                rates = [2.0**i for i in range(-8, 16)]
                best = 0.5 * kappa**-0.9 * steps**-0.8
                top = 1 / (1 + (300 * kappa) ** 1.1)
                kept = [top - 0.02 * torch.log(torch.tensor(r / best)).item() ** 2 for r in rates]
                cells.append({"n": n, "kappa": kappa, "parameters": parameters, "steps": steps,
                              "rates": rates, "kept": kept, "best": best})  # fmt: skip
    law = advice.fit(cells)
    assert law.rate == pytest.approx([-0.6931, -0.9, -0.8], abs=1e-3)
    assert law.kept[1] == pytest.approx(-1.1, abs=0.03)
    assert advice.summary([advice.errors(law, cells)])["kept_rms"] < 0.02
    for cell in cells:
        cell["kept"] = [k / 2 for k in cell["kept"]]
    assert advice.summary([advice.errors(law, cells)])["kept_rms"] > 0.2
