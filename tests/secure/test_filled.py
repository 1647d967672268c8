"""In secure mode a row's gradient is the same, bit for bit, whoever else was drawn."""

import numpy as np
import pytest
import torch
from small_problem import make_trainer, small_data
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import ModelError, Padded, Validation
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.noise.grid import GRID
from dpsgd_torch.secure.generator import secure_generator
from dpsgd_torch.training.filled import FilledPasses, filled
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep
from dpsgd_torch.training.validation import HeldOut

LOSS = per_example(nn.CrossEntropyLoss())


def rows(count):
    torch.manual_seed(0)
    return torch.rand(count, 300), torch.randint(4, (count,))


def on_the_kink(inputs):
    """A model whose ReLUs stand at 0 for the last row, to the last bits of a pass over all."""
    torch.manual_seed(1)
    hidden = nn.Linear(300, 64)
    with torch.no_grad():
        hidden.bias.zero_()
        hidden.bias -= hidden(inputs)[-1]
    return nn.Sequential(hidden, nn.ReLU(), nn.Linear(64, 4))


def vector(engine, params, inputs, targets):
    """Of the last row."""
    engine.backward(LOSS, inputs, targets)
    return torch.cat(engine.vectors(params).vector(len(inputs) - 1))


@pytest.mark.parametrize("passes", [False, True])
def test_a_relu_falls_on_the_other_side_in_a_batch_of_another_size_unless_it_is_filled(passes):
    inputs, targets = rows(16)
    model = on_the_kink(inputs)
    engine, params = GraphGradients(model), list(model.parameters())
    if passes:
        engine = FilledPasses(engine, 16)
    told = [vector(engine, params, inputs[-n:], targets[-n:]) for n in (16, 15, 3, 2)]
    moved = max(float((told[0] - other).norm() / told[0].norm()) for other in told[1:])
    if passes:
        assert moved == 0
    else:
        assert moved > 1000 * 2.0**-19  # of what is charged


def taken(size, filled_up):
    """The sums, before noise, of a step over ``size`` rows, with weights; and its record."""
    inputs, targets = rows(size)
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(300, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = PrivateOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.0), microbatches=8, noise=GRID, state={}
    )
    sums = []
    engine = GraphGradients(model)
    step = PrivateStep(
        FilledPasses(engine, 8) if filled_up else engine,
        LOSS,
        optimizer,
        physical_batch_size=8,
        before_release=lambda: sums.extend(t.clone().double() for t in optimizer.sums),
    )

    class Data:
        def take(self, which):
            return inputs[which], targets[which]

    everyone = np.arange(size)
    for slots, weights in ((everyone, None), (everyone // 2, np.full(size, 0.5, np.float32))):
        draw = Draw(everyone, slots, secure_generator(bytes(32)), weights)
        record = step(Data(), StepPlan(0.5, 1.0), draw)
        sums.append(torch.tensor([record.loss_sum, record.examples, len(record.norms)]).double())
    return torch.cat([each.flatten() for each in sums])


@pytest.mark.parametrize("size", [3, 8, 11])
def test_what_fills_a_pass_up_counts_for_nothing(size):
    assert torch.allclose(taken(size, True), taken(size, False), rtol=1e-5, atol=1e-6)


class Counting(nn.Module):
    def forward(self, x):
        SIZES.add(len(x))
        return x


SIZES = set()


def test_a_secure_run_takes_passes_of_one_size():
    for secure, expected in ((True, {5}), (False, {1, 2, 3, 4, 5})):
        model = nn.Sequential(Counting(), nn.Linear(4, 3), nn.Dropout(0.1), nn.Linear(3, 3))
        seed = None if secure else 3
        trainer = make_trainer(model=model, data=flat(), seed=seed, secure=secure)
        SIZES.clear()
        trainer.fit()
        assert expected >= SIZES >= {5}
        assert len(SIZES) == 1 or not secure


def flat():
    torch.manual_seed(0)
    return torch.randn(60, 4), torch.randint(2, (60,))


class Ranked(nn.Module):
    """Rounds each row by its place: what a kernel may do, and this one does by far more."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        at = torch.arange(len(x), dtype=x.dtype)[:, None]
        return self.layer(x) * (1 + 2.0**-22 * at)


def test_a_row_that_moves_with_its_place_is_refused_before_anything_is_charged(tmp_path):
    given = {"model": Ranked(), "data": flat(), "seed": None}
    with pytest.raises(ModelError, match=r"layer\.\w+: in passes of \d+ rows .*last bits"):
        make_trainer(**given, secure=True, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    make_trainer(**given, secure=True, physical_batch_size=1)  # each alone


def test_rows_of_unequal_length_are_refused_in_secure_mode():
    words = Padded([[1.0, 2.0], [3.0], [4.0], [5.0]])
    given = {"model": nn.Linear(2, 2), "data": (words, torch.tensor([0, 1, 0, 1]))}
    with pytest.raises(InvalidValue, match="rows of one length"):
        make_trainer(**given, seed=None, secure=True)


def test_a_held_out_rows_score_hangs_on_that_row():
    inputs, targets = rows(16)
    model = on_the_kink(inputs)
    sharp = lambda outputs, targets: (outputs * 1e7).sum(1).sign() * 0.5 + 0.5  # noqa: E731
    told = []
    for n in (16, 15, 3):
        asked = Validation(
            tensors=(inputs[-n:], targets[-n:]), size=10, noise_multiplier=5.0, secure=True
        )
        told.append(HeldOut(asked, sharp, torch.device("cpu")).scores(model)[-3:])
    assert np.array_equal(told[0], told[1])
    assert np.array_equal(told[0], told[2])


def test_more_rows_than_a_pass_has_are_left_as_they_are():
    batch = small_data(5)
    assert filled(batch, 3) is batch
