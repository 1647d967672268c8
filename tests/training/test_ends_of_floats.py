"""Where floats end, no record is worth more, no model refused, and no honest noise is called false.

Squares that vanish, parameters in float64 or without dimensions, noise that rounds to nothing.
"""

import numpy as np
import pytest
import torch
from gradient_oracle import clipped, gradients_alone
from small_problem import make_trainer
from torch import nn

from dpsgd_torch import ModelError, Privacy, WeightNormLinear
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.noise import independent
from dpsgd_torch.privacy.plan import StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer

CLIP = 1e-5
WIDTH, RECORDS, ROW = 300, 200, 6


def product(outputs, targets):
    return (outputs * targets).sum(1)


@pytest.fixture
def sums(monkeypatch):
    """What is in the sums of each step, before the noise."""
    kept = []
    add_noise = PrivateOptimizer.add_noise

    def spied(self):
        kept.append(torch.cat([total.flatten() for total in self.sums]))
        add_noise(self)

    monkeypatch.setattr(PrivateOptimizer, "add_noise", spied)
    return kept


def all_in_one_step(model, loss, data, clip=CLIP, **options):
    privacy = Privacy(
        noise_multiplier=1.0, delta=1e-5, clip_norm=clip, **options.pop("privacy", {})
    )
    settings = {"batch_size": len(data[0]), "epochs": 1, "physical_batch_size": 64, **options}
    return make_trainer(model=model, loss=loss, data=data, privacy=privacy, **settings).fit()


@pytest.mark.parametrize("gradients", ["graph", "opacus"])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_record_whose_squares_vanish_moves_the_sum_by_one_clip(sums, gradients, rows):
    """Inputs whose squares are below the least float, before a gradient large enough to count.

    Clipped by the norm that is left of them, one moved the sum by 240 clip norms.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = 1e-6 * torch.randn(RECORDS, WIDTH, generator=generator)
    targets = torch.randn(RECORDS, WIDTH, generator=generator)
    options = {"gradients": gradients}
    if rows > 1:
        ids = torch.arange(RECORDS) // rows
        options |= {"units": ids, "rows_per_unit": rows, "privacy": {"unit": "person"}}
        options |= {"batch_size": RECORDS // rows}
    unit = slice(ROW, ROW + rows)
    for small, large in ((2e-23, 2e17), (0.0, 0.0)):
        inputs[unit], targets[unit] = small, large
        model = nn.Linear(WIDTH, WIDTH, bias=False)
        all_in_one_step(model, product, (inputs.clone(), targets.clone()), **options)
    assert float((sums[0] - sums[1]).norm()) <= CLIP


def in_float64(layer):
    return nn.Sequential(layer, nn.Tanh(), nn.LayerNorm(3)).double()


class Tempered(nn.Module):
    """A scalar parameter, such as a temperature."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(4, 3), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.inner(x) * self.scale.exp()


@pytest.mark.parametrize("gradients", ["auto", "opacus"])
@pytest.mark.parametrize(
    "model",
    [in_float64(nn.Linear(4, 3)), in_float64(WeightNormLinear(4, 3)), Tempered()],
    ids=["float64", "float64 by weight norm", "scalar parameter"],
)
def test_doubles_and_scalars_are_trained_by_their_gradients(sums, gradients, model):
    """In float64 the first sum overwrote the gradients at the outputs: all such were refused."""
    dtype = next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(40, 4, generator=generator).to(dtype), torch.arange(40) % 3
    margin = {"auto": PartVectors, "opacus": Stored}[gradients].margin
    wanted = clipped(gradients_alone(model, data), 0.1 * (1 - margin))
    all_in_one_step(model, nn.CrossEntropyLoss(), data, clip=0.1, gradients=gradients)
    assert float((sums[0] - wanted).norm() / wanted.norm()) < 3e-5


@pytest.mark.parametrize("drawn", [1e-9, -1e-8, 3e-7])
def test_honest_noise_near_zero_is_no_false_alarm(monkeypatch, drawn):
    """Of one coordinate it rounds to the grid's 0 once in three million steps."""
    monkeypatch.setattr(independent, "fill_normal", lambda _, out: out.fill(drawn))
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), microbatches=1)
    optimizer.begin(StepPlan(1.0, 1.0), np.random.default_rng(0))
    parameter.grad_sample = torch.full((3, 1), 0.25)
    optimizer.accumulate(Stored([parameter]))
    optimizer.release()
    assert parameter.item() == pytest.approx(-0.75, abs=1e-5)


@pytest.mark.parametrize("noise", [1e-12, 1e6])
@pytest.mark.parametrize("clip", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_noise_and_clip_that_is_accepted_trains(noise, clip, dtype):
    privacy = Privacy(noise_multiplier=noise, delta=1e-3, clip_norm=clip)
    data = torch.randn(60, 4).to(dtype), torch.arange(60) % 3
    model = nn.Linear(4, 3).to(dtype)
    for p in model.parameters():
        nn.init.zeros_(p)  # from where no step is rounded away
    trainer = make_trainer(model=model, data=data, privacy=privacy, epochs=1)
    assert trainer.fit().done == trainer.sampling.steps


class Holding(nn.Module):
    def __init__(self, buffer):
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.register_buffer("held", buffer)

    def forward(self, x):
        return self.inner(x)


DATA = torch.randn(60, 4), torch.arange(60) % 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.complex64])
def test_buffers_of_other_types_are_told_apart_and_saved(tmp_path, dtype):
    trainer = make_trainer(model=Holding(torch.ones(3, dtype=dtype)), data=DATA, epochs=1)
    assert (trainer.fit().save(tmp_path / "run") / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "buffer",
    [torch.ones(2, dtype=torch.complex128), torch.eye(3).to_sparse()],
    ids=["complex128", "sparse"],
)
def test_what_no_file_of_tensors_can_hold_is_refused_before_a_charge(buffer):
    with pytest.raises(ModelError, match=r"as it is saved.*nothing was charged"):
        make_trainer(model=Holding(buffer), data=DATA)


class WithExtraState(Holding):
    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, state):
        pass


def test_extra_state_is_refused_before_a_charge_in_memory_too():
    with pytest.raises(ModelError, match=r"drop get_extra_state.*nothing was charged"):
        make_trainer(model=WithExtraState(torch.ones(1)), data=DATA)


@pytest.mark.parametrize("left_out", [-100, 200])
def test_targets_that_a_loss_ignores_are_no_classes_in_between(left_out):
    """−91 was made up between the −100 of ``ignore_index`` and the classes, and refused."""
    targets = torch.arange(60) % 3
    targets[::5] = left_out
    loss = nn.CrossEntropyLoss(ignore_index=left_out)
    trainer = make_trainer(model=nn.Linear(4, 3), data=(DATA[0], targets), loss=loss, epochs=1)
    assert trainer.fit().done == trainer.sampling.steps


class Summed(nn.Module):
    def forward(self, x):
        return x.sum(1, keepdim=True)


@pytest.mark.parametrize(("offset", "spread"), [(10.0, 0.01), (100.0, 0.01), (2000.0, 1.0)])
def test_rows_far_from_zero_are_clipped_by_the_norm_that_is_added(offset, spread):
    """Normalised again in float64 they had another norm, which stopped runs as broken."""
    generator = torch.Generator().manual_seed(2)
    inputs = offset + spread * torch.randn(300, 8, generator=generator)
    data = inputs, torch.randn(300, 1, generator=generator)
    model = nn.Sequential(nn.LayerNorm(8, bias=False), Summed())
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.1)
    trainer = make_trainer(
        model=model, data=data, loss=nn.MSELoss(), privacy=privacy, batch_size=100, epochs=9
    )
    assert trainer.gradients == "graph"
    assert trainer.fit().done == trainer.sampling.steps
