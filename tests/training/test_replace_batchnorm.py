"""What replacing a batch norm keeps, and what it does not pretend to keep."""

import pytest
import torch
from small_problem import make_trainer
from torch import nn
from torch.nn.utils import parametrizations

from dpsgd_torch import ModelError, replace_batchnorm

ANY = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]


def trained(norm: nn.Module, seed: int = 0) -> nn.Module:
    """The norm with weights that are not those it began with."""
    generator = torch.Generator().manual_seed(seed)
    for p in norm.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator))
    return norm


@pytest.mark.parametrize("kind", ANY)
def test_a_trained_weight_and_bias_go_on_where_they_were(kind):
    norm = trained(kind(32, eps=1e-3))
    weight, bias = norm.weight, norm.bias
    mended = replace_batchnorm(nn.Sequential(norm))[0]
    assert type(mended) is nn.GroupNorm
    assert (mended.num_groups, mended.num_channels, mended.eps) == (2, 32, 1e-3)
    assert mended.affine
    assert mended.weight is weight
    assert mended.bias is bias


def test_what_comes_out_is_the_normalised_input_times_the_trained_weight_plus_the_bias():
    norm = trained(nn.BatchNorm2d(3))
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    mended = replace_batchnorm(nn.Sequential(norm))
    flat = x.flatten(1).double()
    normal = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, False, keepdim=True) + 1e-5).sqrt()
    expected = normal.view_as(x) * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(mended(x).double(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ANY)
def test_no_parameter_is_added_where_there_was_none(kind):
    mended = replace_batchnorm(nn.Sequential(kind(32, affine=False)))
    assert not list(mended.parameters())
    assert not mended[0].affine


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (15, 1), (16, 1), (24, 1), (48, 3)])
def test_groups_hold_sixteen_channels_where_that_divides(channels, groups):
    mended = replace_batchnorm(nn.Sequential(nn.BatchNorm2d(channels)))[0]
    assert mended.num_groups == groups


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_device_and_what_is_trained_stay(dtype):
    norm = nn.BatchNorm2d(4, dtype=dtype, device="meta")
    norm.bias.requires_grad_(False)
    mended = replace_batchnorm(nn.Sequential(norm))[0]
    assert mended.weight.dtype == mended.bias.dtype == dtype
    assert mended.weight.device.type == mended.bias.device.type == "meta"
    assert mended.weight.requires_grad
    assert not mended.bias.requires_grad


def test_evaluation_mode_stays_layer_by_layer():
    model = nn.Sequential(nn.BatchNorm2d(4).eval(), nn.BatchNorm2d(4))
    mended = replace_batchnorm(model)
    assert [layer.training for layer in mended] == [False, True]
    assert mended.training


def test_an_optimizer_made_before_still_holds_the_parameters():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(a is b for a, b in zip(held, replace_batchnorm(model).parameters(), strict=True))


def test_a_model_that_is_itself_a_batch_norm_comes_back_as_a_group_norm():
    norm = trained(nn.BatchNorm1d(16)).eval()
    mended = replace_batchnorm(norm)
    assert type(mended) is nn.GroupNorm
    assert mended.weight is norm.weight
    assert not mended.training


class Shared(nn.Module):
    """One norm, used by two layers and reached by three ways."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(4)
        self.second = self.first
        self.inner = nn.ModuleDict({"again": self.first, "other": nn.BatchNorm2d(4)})


def test_a_layer_that_is_shared_stays_one_layer():
    mended = replace_batchnorm(Shared())
    assert type(mended.first) is nn.GroupNorm
    assert mended.second is mended.first
    assert mended.inner["again"] is mended.first
    assert mended.inner["other"] is not mended.first
    assert len(list(mended.parameters())) == 4


def test_layers_in_a_container_that_is_shared_are_replaced_everywhere():
    block = nn.Sequential(nn.BatchNorm1d(4))
    model = nn.ModuleList([block, nn.ModuleList([block])])
    mended = replace_batchnorm(model)
    assert type(mended[1][0][0]) is nn.GroupNorm
    assert mended[1][0] is mended[0]


@pytest.mark.parametrize("affine", [False, True])
def test_an_instance_norm_stays_and_only_forgets_its_statistics(affine):
    norm = trained(nn.InstanceNorm2d(4, affine=affine, track_running_stats=True).double()).eval()
    parameters = list(norm.parameters())
    model = nn.Sequential(norm)
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1)).double()
    mended = replace_batchnorm(model)
    assert mended[0] is norm
    assert [p is q for p, q in zip(mended.parameters(), parameters, strict=True)] == [
        True for _ in parameters
    ]
    assert not list(mended.buffers())
    assert not norm.training
    assert torch.equal(mended.eval()(x), mended.train()(x))


def test_what_is_not_a_batch_norm_is_left_alone():
    layers = [nn.InstanceNorm2d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Linear(4, 4)]
    model = nn.Sequential(*layers)
    assert replace_batchnorm(model) is model
    assert all(a is b for a, b in zip(model, layers, strict=True))


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class NormAct(nn.BatchNorm2d):
    """A norm with its activation in one, as timm builds them."""

    def __init__(self, channels, act=None, drop=None, **more):
        super().__init__(channels, **more)
        self.drop, self.act = drop or nn.Identity(), act or nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class OtherWayRound(NormAct):
    def forward(self, x):
        return nn.BatchNorm2d.forward(self, self.act(x))


class OnlyRenamed(nn.BatchNorm2d):
    pass


def watched(norm: nn.Module) -> nn.Module:
    norm.register_forward_hook(lambda layer, inputs, output: output * 2)
    return norm


def with_more(norm: nn.Module) -> nn.Module:
    norm.scale = nn.Parameter(torch.ones(1))
    return norm


MORE_THAN_A_NORM = {
    "LazyBatchNorm2d: does not know its number of channels": nn.LazyBatchNorm2d,
    "LazyInstanceNorm2d: does not know": lambda: nn.LazyInstanceNorm2d(track_running_stats=True),
    "NormAndActivation: has a forward of its own": lambda: NormAndActivation(4),
    "ParametrizedBatchNorm2d: has parametrizations": lambda: parametrizations.weight_norm(
        nn.BatchNorm2d(4), dim=None
    ),
    "OtherWayRound: has act, drop": lambda: OtherWayRound(4),
    "NormAct: has act, drop, scale": lambda: with_more(NormAct(4)),
    "NormAct: has act, drop, which": lambda: watched(NormAct(4)),
    "BatchNorm2d: has hooks": lambda: watched(nn.BatchNorm2d(4)),
    "BatchNorm2d: has scale": lambda: with_more(nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("message", MORE_THAN_A_NORM)
def test_a_layer_that_is_more_than_a_norm_is_refused_by_name_and_nothing_is_replaced(message):
    plain = nn.BatchNorm2d(4)
    model = nn.Sequential(plain, nn.Sequential(MORE_THAN_A_NORM[message]()))
    with pytest.raises(ModelError, match=rf"layer 1\.0 = .*{message}"):
        replace_batchnorm(model)
    assert model[0] is plain


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.SiLU(), nn.PReLU(), nn.Identity()])
def test_a_norm_and_activation_in_one_becomes_a_group_norm_and_the_same_activation(act):
    norm = trained(NormAct(32, act, nn.Dropout(0.5))).eval()
    names, weight = [name for name, _ in norm.named_parameters()], norm.weight
    mended = replace_batchnorm(nn.Sequential(norm))[0]
    assert isinstance(mended, nn.GroupNorm)
    assert mended.weight is weight
    assert mended.act is act
    assert mended.drop is norm.drop
    assert [name for name, _ in mended.named_parameters()] == names
    assert not mended.training
    assert not mended.drop.training
    x = torch.randn(4, 32, 5, 5, generator=torch.Generator().manual_seed(1))
    plain = nn.functional.group_norm(x, 2, norm.weight, norm.bias)
    assert torch.equal(mended(x), act(plain))


def test_a_norm_and_activation_in_one_without_weights_gets_none():
    mended = replace_batchnorm(nn.Sequential(NormAct(32, affine=False)))
    assert not list(mended.parameters())
    assert isinstance(mended[0].act, nn.ReLU)


def test_a_model_of_norms_with_activations_trains_after_mending():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), NormAct(4), nn.Flatten(), nn.Linear(64, 3))
    before = trained(model[1]).weight.detach().clone()
    trainer = make_trainer(model=replace_batchnorm(model), epochs=1).fit()
    assert not torch.equal(trainer.model[1].weight, before)


def test_a_lazy_norm_that_has_seen_its_channels_is_a_norm_like_others():
    model = nn.Sequential(nn.LazyBatchNorm2d())
    model(torch.zeros(2, 16, 3, 3))
    assert replace_batchnorm(model)[0].num_channels == 16


def test_a_class_that_only_renames_a_batch_norm_is_replaced():
    assert type(replace_batchnorm(nn.Sequential(OnlyRenamed(4)))[0]) is nn.GroupNorm


def test_a_mended_model_trains():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    trained(model[1])
    before = model[1].weight.detach().clone()
    trainer = make_trainer(model=replace_batchnorm(model)).fit()
    assert not torch.equal(trainer.model[1].weight, before)
