"""What cannot be private is refused by name, before anything is charged."""

import pytest
import torch
from small_problem import make_trainer, sgd, small_model
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import DataError, ModelError, Privacy


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4).requires_grad_(False),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
)
def test_batch_statistics_are_refused_by_name(norm):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ModelError, match=r"layer 1 = .*replace_batchnorm"):
        make_trainer(model=model)


class Mixing(nn.Module):
    """A home-made layer that subtracts the batch's mean."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(36, 3)

    def forward(self, x):
        out = self.inner(x.flatten(1))
        return out - out.mean(0)


def test_a_home_made_layer_that_mixes_examples_is_caught():
    with pytest.raises(ModelError, match="changes with another example"):
        make_trainer(model=Mixing())


class Remembering(nn.Module):
    """A layer that keeps the last batch's mean in a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(36, 3)
        self.register_buffer("seen", torch.zeros(36))

    def forward(self, x):
        self.seen.copy_(x.detach().flatten(1).mean(0))
        return self.inner(x.flatten(1))


def test_a_buffer_that_remembers_the_data_is_refused_by_name():
    model = Remembering()
    with pytest.raises(ModelError, match="buffer seen"):
        make_trainer(model=model)
    assert not model.seen.any()


def test_a_loss_that_mixes_examples_is_caught():
    def centred(outputs, targets):
        losses = nn.functional.cross_entropy(outputs, targets, reduction="none")
        return losses * losses.mean()

    with pytest.raises(ModelError, match="changes with another example"):
        make_trainer(loss=centred)


def test_a_class_weighted_mean_is_taken_apart():
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1]))
    make_trainer(loss=weighted).fit()


def test_a_scalar_loss_is_refused():
    with pytest.raises(ModelError, match="one value per example"):
        make_trainer(loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(36, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x.flatten(1))


def test_a_parameter_without_gradient_is_refused_by_name():
    with pytest.raises(ModelError, match=r"parameter idle\.weight: .*no gradient"):
        make_trainer(model=Unused())


def test_a_frozen_parameter_is_not_missed():
    model = Unused()
    model.idle.requires_grad_(False)
    frozen = model.idle.weight.clone()
    make_trainer(model=model).fit()
    assert torch.equal(model.idle.weight, frozen)


def test_the_optimizer_must_hold_the_models_parameters():
    model = small_model()
    with pytest.raises(ModelError, match=r"4\.weight"):
        make_trainer(model=model, optimizer=torch.optim.SGD(model[0].parameters(), lr=0.1))
    stranger = nn.Parameter(torch.zeros(1))
    with pytest.raises(ModelError, match="frozen or not the model's"):
        make_trainer(model=model, optimizer=sgd([*model.parameters(), stranger]))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"batch_size": 121}, InvalidValue),
        ({"batch_size": 0}, InvalidValue),
        ({"epochs": 0}, InvalidValue),
        ({"physical_batch_size": 0}, InvalidValue),
        ({"data": (torch.zeros(0, 2), torch.zeros(0))}, DataError),
        ({"data": (torch.zeros(3, 2), torch.zeros(4))}, DataError),
    ],
)
def test_bad_input_is_refused_before_anything_is_charged(changes, error, tmp_path):
    with pytest.raises(error):
        make_trainer(run_dir=tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "promise",
    [
        {"noise_multiplier": float("nan")},
        {"noise_multiplier": -1.0},
        {"epsilon": 0.0},
        {"noise_multiplier": 1.0, "clip_norm": 0.0},
        {"noise_multiplier": 1.0, "delta": 1.0},
        {},
    ],
)
def test_an_impossible_promise_is_refused(promise):
    with pytest.raises(InvalidValue):
        Privacy(**{"delta": 1e-5, "clip_norm": 1.0, **promise})


def test_a_half_precision_model_is_refused():
    with pytest.raises(ModelError, match="train in float32"):
        make_trainer(model=small_model().bfloat16())
