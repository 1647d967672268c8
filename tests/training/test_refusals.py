"""What cannot be private is refused by name, before anything is charged."""

import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from small_problem import make_trainer, sgd, small_data, small_model
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import DataError, ModelError, Privacy, Trainer, replace_batchnorm


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


@pytest.mark.parametrize(
    "mix",
    [
        lambda z, x: z / (z.detach().abs().max() + 1),
        lambda z, x: z / (x.abs().amax() + 0.1),
        lambda z, x: z if len(x) < 3 else z - z.mean(0),
    ],
)
def test_subtler_ways_to_mix_examples_are_caught_every_time(mix):
    class Subtle(Mixing):
        def forward(self, x):
            return mix(self.inner(x.flatten(1)), x.flatten(1))

    for _ in range(3):
        match = "changes with another example|rows are not the examples"
        with pytest.raises(ModelError, match=match):
            make_trainer(model=Subtle(), seed=None)


class Sequence(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        x = x.flatten(1, 2)
        if isinstance(self.layer, nn.LSTM):
            return self.layer(x)[0][:, -1]
        return self.layer(x, x, x, need_weights=False)[0][:, -1, :3]


@pytest.mark.parametrize(
    "layer",
    [nn.LSTM(6, 3, batch_first=True), nn.MultiheadAttention(6, 1, batch_first=True)],
    ids=["LSTM", "MultiheadAttention"],
)
def test_a_layer_opacus_cannot_differentiate_trains_and_is_refused_where_it_is_asked_for(layer):
    with pytest.raises(ModelError, match=r"gradients='graph', or use opacus\.layers"):
        make_trainer(model=Sequence(layer), gradients="opacus")
    assert error_of_the_clipped_sum(Sequence(layer), small_data(9)) < 2e-6
    assert make_trainer(model=Sequence(layer)).fit().done == 30


@pytest.mark.parametrize("layer", [nn.LSTM(6, 3), nn.MultiheadAttention(6, 1)], ids=["LSTM", "MHA"])
def test_a_layer_that_takes_the_examples_for_steps_is_refused(layer):
    match = "changes with another example|not the one it has alone|mix|rows are not the examples"
    with pytest.raises(ModelError, match=match):
        make_trainer(model=Sequence(layer))


def test_targets_of_the_wrong_dtype_are_named_as_the_likely_cause():
    inputs, targets = small_data()
    with pytest.raises(ModelError, match=r"outputs \(.*targets \(\d,\) of int32"):
        make_trainer(data=(inputs, targets.int()))


def test_an_optimizer_that_evaluates_the_loss_many_times_is_refused():
    with pytest.raises(ModelError, match="LBFGS"):
        make_trainer(optimizer=lambda p: torch.optim.LBFGS(p))


def test_a_frozen_model_is_refused():
    with pytest.raises(ModelError, match="no trainable parameter"):
        make_trainer(model=small_model().requires_grad_(False))


@pytest.mark.parametrize(
    "data",
    [
        [(torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(3, 2), torch.zeros(3))],
        torch.zeros(20, 2),
        torch.utils.data.DataLoader(torch.zeros(6, 2), batch_size=3),
        [[1.0, 2.0], [0, 1]],
    ],
)
def test_data_that_is_not_a_pair_of_tensors_is_refused(data):
    with pytest.raises(DataError, match="pair of tensors"):
        Trainer(
            small_model(),
            nn.CrossEntropyLoss(),
            data,
            privacy=None,
            batch_size=2,
            epochs=1,
            optimizer=sgd,
        )


def test_numpy_arrays_and_tensor_datasets_are_taken():
    inputs, targets = small_data()
    for data in (
        (inputs.numpy(), targets.numpy()),
        [inputs, targets.numpy()],
        torch.utils.data.TensorDataset(inputs, targets),
    ):
        trainer = make_trainer(data=data)
        assert torch.equal(trainer.data.inputs, inputs)
        assert torch.equal(trainer.data.targets, targets)
        first, second = trainer.data
        assert torch.equal(first, inputs)
        assert torch.equal(second, targets)


def test_instance_norms_can_be_mended_too():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    trainer = make_trainer(model=replace_batchnorm(model)).fit()
    assert trainer.done == trainer.sampling.steps
    assert not list(trainer.model.buffers())


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
    inputs, _ = small_data()
    answers = {}
    for counted in (0, 1, 2):
        trainer = make_trainer(
            loss=nn.CrossEntropyLoss(weight=torch.eye(3)[counted]),
            privacy=Privacy(noise_multiplier=0.3, delta=1e-3, clip_norm=0.5),
        ).fit()
        answers[counted] = trainer.model.eval()(inputs).mean(0).argmax().item()
    assert answers == {0: 0, 1: 1, 2: 2}  # where one class alone counts, it is what is learnt


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


def test_a_device_without_float64_is_refused_before_a_charge(monkeypatch):
    honest = torch.zeros

    def no_float64(*size, **options):
        if options.get("dtype") is torch.float64 and options.get("device") == torch.device("cpu"):
            raise TypeError("Cannot convert to float64 on this device")
        return honest(*size, **options)

    monkeypatch.setattr(torch, "zeros", no_float64)
    with pytest.raises(ModelError, match=r"cpu: has no float64 .*; train on"):
        make_trainer()
