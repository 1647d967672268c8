"""Every node rule gives each example's gradient as float64 autograd does for it alone."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from graph_nodes import EXACT, EXAMPLES, INDICES, compared, data, drawn, flat, parameter, second
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule, rule_for
from dpsgd_torch.gradients.parts import Written

B = EXAMPLES


ELEMENTWISE = {
    "AddBackward0": lambda x, w: torch.add(x, w, alpha=1.5),
    "SubBackward0": lambda x, w: torch.sub(x, w, alpha=0.5),
    "RsubBackward0": lambda x, w: torch.rsub(x, w, alpha=0.5),
    "MulBackward0": lambda x, w: w * x,
    "DivBackward0": lambda x, w: x / w,
    "PowBackward1": lambda x, w: (x.abs() + 0.1) ** w,
    "MaximumBackward0": torch.maximum,
    "MinimumBackward0": torch.minimum,
    "FmaxBackward0": torch.fmax,
    "FminBackward0": torch.fmin,
    "WhereBackward0": lambda x, w: torch.where(x.detach() > 0, x, w),
    "LerpBackward0": lambda x, w: torch.lerp(w, x, 0.3),
    "LerpBackward1": lambda x, w: torch.lerp(x, w, x.detach()),
    "AddcmulBackward0": lambda x, w: torch.addcmul(x, w, x, value=0.5),
    "AddcdivBackward0": lambda x, w: torch.addcdiv(x, x, w, value=0.5),
    "Atan2Backward0": torch.atan2,
    "HypotBackward0": torch.hypot,
    "LogaddexpBackward0": torch.logaddexp,
    "Logaddexp2Backward0": torch.logaddexp2,
    "XlogyBackward0": lambda x, w: torch.xlogy(x, w.abs() + 0.1),
    "CopysignBackward0": lambda x, w: torch.copysign(w, x),
    "MaskedFillBackward0": lambda x, w: w.masked_fill(x.detach() > 0, 0.0),
    "torch::autograd::CopyBackwards": lambda x, w: (x * 1).copy_(w),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(5,), (1, 4, 1), (4, 5), ()], ids=str)
def test_arithmetic_with_a_broadcast_parameter(name, shape):
    x, w = data(B, 4, 5), parameter(*shape)
    assert compared(lambda: ELEMENTWISE[name](x, w), [w], name) < EXACT


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("at", [second, flat])
def test_arithmetic_where_the_batch_is_not_first(name, at):
    x, w = data(*{second: (4, B, 5), flat: (B * 4, 5)}[at]), parameter(5)
    assert compared(lambda: ELEMENTWISE[name](x, w), [w], name, at=at) < EXACT


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["MulBackward0", "AddBackward0", "DivBackward0", "SubBackward0"]),
    st.lists(st.tuples(st.integers(2, 4), st.booleans()), min_size=1, max_size=3),
    st.data(),
)
def test_any_broadcast_shape_with_the_examples_anywhere(name, sizes, choice):
    place = choice.draw(st.integers(0, len(sizes)))
    inner, outer = choice.draw(st.integers(1, 3)), choice.draw(st.integers(1, 2))
    whole = [size for size, _ in sizes]
    shape = [size if kept else 1 for size, kept in sizes]
    whole.insert(place, outer * B * inner)
    shape.insert(place, choice.draw(st.sampled_from([1, outer * B * inner])))
    missing = choice.draw(
        st.integers(0, next((i for i, n in enumerate(shape) if n > 1), len(shape)))
    )
    x, w = data(*whole), parameter(*shape[missing:])

    def first(output):
        return output.unflatten(place, (outer, B, inner)).movedim(place + 1, 0)

    assert compared(lambda: ELEMENTWISE[name](x, w), [w], name, at=first) < EXACT


def seen(layer, *shape, at, name):
    layer = layer.double()
    for seed, own in enumerate(layer.parameters()):
        own.data = drawn(own.shape, seed)
    x = data(*shape)
    return compared(lambda: layer(x), list(layer.parameters()), name, at=at)


@pytest.mark.parametrize(
    ("layer", "shape", "name", "at"),
    [
        (nn.LayerNorm(5), (B, 4, 5), "NativeLayerNormBackward0", lambda y: y),
        (nn.LayerNorm((4, 5)), (B, 2, 4, 5), "NativeLayerNormBackward0", lambda y: y),
        (nn.LayerNorm(5, bias=False), (B, 5), "NativeLayerNormBackward0", lambda y: y),
        (nn.LayerNorm(5), (4, B, 5), "NativeLayerNormBackward0", second),
        (nn.LayerNorm(5), (4 * B, 5), "NativeLayerNormBackward0", flat),
        (nn.RMSNorm(5), (B, 4, 5), "MulBackward0", lambda y: y),
        (nn.GroupNorm(2, 4), (B, 4), "NativeGroupNormBackward0", lambda y: y),
        (nn.GroupNorm(2, 4), (B, 4, 5, 2), "NativeGroupNormBackward0", lambda y: y),
        (nn.GroupNorm(2, 4), (2 * B, 4, 5), "NativeGroupNormBackward0", flat),
        (nn.InstanceNorm1d(4, affine=True), (B, 4, 5), "RepeatBackward0", lambda y: y),
        (nn.InstanceNorm2d(4, affine=True), (B, 4, 5, 2), "RepeatBackward0", lambda y: y),
        (nn.BatchNorm1d(4).eval(), (B, 4), "NativeBatchNormBackward0", lambda y: y),
        (nn.BatchNorm2d(4).eval(), (B, 4, 5, 2), "NativeBatchNormBackward0", lambda y: y),
        (nn.PReLU(), (B, 4, 5), "PreluKernelBackward0", lambda y: y),
        (nn.PReLU(4), (B, 4, 5), "PreluKernelBackward0", lambda y: y),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple | nn.Module) else "",
)
def test_layers_of_scales_and_shifts(layer, shape, name, at):
    if isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d):
        layer = layer.double()
        x = data(*shape)
        for own in layer.parameters():
            assert compared(lambda: layer(x), [own], name) < EXACT
        return
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        layer.running_mean += torch.arange(4)
        layer.running_var *= 1 + torch.arange(4)
    assert seen(layer, *shape, name=name, at=at) < EXACT


def test_group_norm_of_channels_last_memory():
    layer, x = nn.GroupNorm(2, 4).double(), data(B, 4, 5, 2)
    name, own = "NativeGroupNormBackward0", list(layer.parameters())

    def forward():
        return layer(x.to(memory_format=torch.channels_last))

    # torch 2.13 dies (SIGSEGV) where it is not asked for the gradient of x
    assert compared(forward, own, name, also=(x,)) < EXACT


def test_batch_statistics_are_refused():
    layer, x = nn.BatchNorm1d(4), torch.randn(B, 4)
    node = layer(x).grad_fn
    with pytest.raises(NoRule, match="replace_batchnorm"):
        rule_for(node.name())(node, torch.ones(B, 4), [1], Rows(B))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("padding", [None, 1, -2])
@pytest.mark.parametrize("at", [lambda y: y, second, flat], ids=["first", "second", "flat"])
def test_embeddings(padding, sparse, at):
    layer = nn.Embedding(7, 5, padding_idx=padding, sparse=sparse).double()
    indices = {second: INDICES.T, flat: INDICES.flatten()}.get(at, INDICES)
    assert compared(lambda: layer(indices), [layer.weight], "EmbeddingBackward0", at=at) < EXACT


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 1])
@pytest.mark.parametrize("offsets", [None, [0, 3, 3], [0, 1, 5, 5, 8, 8], [0, 4, 6, 12]], ids=str)
def test_bags_of_embeddings(mode, padding, offsets):
    last = offsets is not None and offsets[-1] == 12
    layer = nn.EmbeddingBag(7, 5, mode=mode, padding_idx=padding, include_last_offset=last).double()
    given = (INDICES,) if offsets is None else (INDICES.flatten(), torch.tensor(offsets))
    at = flat if offsets is not None and len(offsets) == 6 else lambda y: y
    if offsets == [0, 3, 3]:  # an empty bag of an example
        given = (INDICES.flatten(), torch.tensor([0, 3, 7]))
    error = compared(lambda: layer(*given), [layer.weight], "EmbeddingBagBackward0", at=at)
    assert error < EXACT


def test_weighted_bags_and_their_weights():
    layer, w = nn.EmbeddingBag(7, 5, mode="sum").double(), parameter(4)
    own = torch.rand(B, 4, dtype=torch.float64)
    name = "EmbeddingBagBackward0"
    for place, wanted in enumerate([layer.weight, w]):
        weights = w.expand(B, 4) if place else own
        error = compared(
            lambda weights=weights: layer(INDICES, per_sample_weights=weights), [wanted], name
        )
        assert error < EXACT


@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_counts_over_the_whole_batch_are_refused(layer):
    node = layer(7, 5, scale_grad_by_freq=True)(INDICES).grad_fn
    with pytest.raises(NoRule, match="scale_grad_by_freq divides by counts over the whole batch"):
        rule_for(node.name())(node, torch.ones(B, 4, 5), [0], Rows(B))


def test_complex_examples_meet_a_real_parameter():
    x, w = data(B, 8), parameter(5)
    assert compared(lambda: torch.fft.irfft(torch.fft.rfft(x) * w), [w], "MulBackward0") < EXACT


def test_a_parameter_of_another_type_gets_its_own():
    x, w = data(B, 4, 5), nn.Parameter(drawn((5,), 9).float())
    for name in ("MulBackward0", "AddBackward0", "MaximumBackward0"):
        assert compared(lambda name=name: ELEMENTWISE[name](x, w), [w], name) < 1e-6


def test_rms_norm_as_one_kernel_agrees_with_its_pieces():
    x, w, back = data(B, 4, 5), parameter(5), drawn((B, 4, 5), 7)
    rstd = x.detach().square().mean(-1, keepdim=True).add(1e-6).rsqrt()
    child = SimpleNamespace(_input_metadata=[SimpleNamespace(shape=w.shape, dtype=w.dtype)])
    node = SimpleNamespace(
        _saved_input=x.detach(), _saved_result1=rstd, _saved_normalized_shape=(5,),
        next_functions=((None, 0), (child, 0)),
    )  # fmt: skip
    ours = rule_for("FusedRmsNormBackward0")(node, back, [1], Rows(B))[1].written()
    for i in range(B):
        (truth,) = torch.autograd.grad(F.rms_norm(x[i], (5,), w, 1e-6), w, back[i])
        assert torch.allclose(ours[i], truth, rtol=EXACT)


def test_a_planted_wrong_rule_is_caught():
    def twice(node, delta, wanted, rows):
        parts = rule_for("MulBackward0")(node, delta, wanted, rows)
        return {place: Written(part.written() * 1.01) for place, part in parts.items()}

    x, w = data(B, 4, 5), parameter(5)
    assert compared(lambda: x * w, [w], "MulBackward0", rule=twice) > 1e-3
