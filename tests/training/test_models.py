"""Models as their libraries make them: their gradients are autograd's, and the Trainer trains."""

import copy
import importlib.util

import pytest
import torch
from model_zoo import ZOO, library_of, made
from torch.utils._pytree import tree_map

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients

ROWS = 3
ENGINE = "graph"
EXACT, ROUNDED = 1e-6, 1e-4


def of_the_zoo() -> list:
    """Every model; skipped where its library is absent."""
    models = []
    for name in ZOO:
        library = library_of(name)
        there = library is None or importlib.util.find_spec(library)
        marks = [pytest.mark.skipif(not there, reason=f"{library} is not installed")]
        models.append(pytest.param(name, marks=marks))
    return models


def widened(values):
    return tree_map(lambda t: t.double() if t.is_floating_point() else t, values)


def gradients_alone(model, inputs, targets, loss) -> torch.Tensor:
    """(examples, parameters): autograd in float64, one example at a time."""
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(targets)):
        one = tree_map(lambda t, i=i: t[i : i + 1], inputs)
        outputs = model(**one) if isinstance(one, dict) else model(one)
        total = loss(outputs, targets[i : i + 1]).sum()
        found = torch.autograd.grad(total, params, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.to_dense().flatten() for g in found]))
    return torch.stack(rows)


def differs(model, inputs, targets, loss, rows) -> float:
    """By how much of it a norm or the clipped sum differs from the oracle's, at the most."""
    params = [p for p in model.parameters() if p.requires_grad]
    norms = rows.norm(dim=1)
    factors = (norms.median() / norms).clamp(max=1.0)
    with per_example_gradients(model, ENGINE) as engine:
        engine.backward(loss, inputs, targets)
        vectors = engine.vectors(params)
        sums = [torch.zeros(p.shape, dtype=torch.float64) for p in params]
        found = vectors.norms.double()
        vectors.add_to(sums, factors)
    wanted = factors @ rows
    given = torch.cat([total.flatten() for total in sums])
    off = float((found / norms - 1).abs().max())
    return max(off, float((given - wanted).norm() / wanted.norm()))


@pytest.mark.parametrize("name", of_the_zoo())
def test_each_example_has_autograds_gradient(name):
    model, inputs, targets, loss = made(name, ROWS)
    loss, twin = per_example(loss), copy.deepcopy(model).double()
    wide, labels = widened(inputs), widened(targets)
    rows = gradients_alone(twin, wide, labels, loss)
    assert bool((rows.norm(dim=1) > 1e-3).all())
    assert differs(twin, wide, labels, loss, rows) < EXACT
    assert differs(model, inputs, targets, loss, rows) < ROUNDED


@pytest.mark.parametrize("name", of_the_zoo())
def test_the_trainer_trains_it(name, tmp_path):
    model, inputs, targets, loss = made(name, 2 * ROWS)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(
        model,
        loss,
        (inputs, targets),
        privacy=Privacy(epsilon=3, delta=1e-3, clip_norm=1.0),
        batch_size=ROWS,
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        seed=0,
    )
    trainer.fit()
    assert trainer.done == 2
    assert 0 < trainer.privacy_spent().epsilon <= 3
    for name, p in model.named_parameters():
        moved = not torch.equal(p, before[name])
        assert moved == p.requires_grad, name
    saved = trainer.save(tmp_path / "run")
    assert (saved / "model.safetensors").stat().st_size > 0
    assert (saved / "privacy.json").exists()
