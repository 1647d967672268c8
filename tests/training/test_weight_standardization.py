"""Weight standardization: gradients of each example, and after export a plain layer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from small_problem import make_trainer
from torch import nn

from dpsgd_torch import WeightStandardizedConv2d, WeightStandardizedLinear


def seeded(make) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.2)
        return model


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 4, 6, 6, generator=generator), torch.arange(7) % 3


class Shared(nn.Module):
    """One layer used twice, and a residual connection round it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = WeightStandardizedConv2d(4, 4, 3, padding=1), nn.Linear(144, 3)

    def forward(self, x):
        x = x + self.conv(torch.relu(x))
        return self.head((x + self.conv(torch.relu(x))).flatten(1))


def ending(*layers: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), WeightStandardizedLinear(width, 3))


MODELS = {
    "one": lambda: ending(WeightStandardizedConv2d(4, 6, 3), width=96),
    "strides and groups": lambda: ending(
        WeightStandardizedConv2d(4, 8, (3, 2), stride=2, padding=1, groups=2), width=8 * 3 * 4
    ),
    "depthwise, dilated": lambda: ending(
        WeightStandardizedConv2d(4, 4, 3, dilation=2, groups=4), width=4 * 2 * 2
    ),
    "no gain, no bias": lambda: ending(
        WeightStandardizedConv2d(4, 6, 3, gain=False, bias=False), width=96
    ),
    "twice": Shared,
}


@pytest.mark.parametrize("kind", ["graph", "opacus"])
@pytest.mark.parametrize("name", MODELS)
def test_clipped_sums_are_those_of_float64_autograd_one_example_at_a_time(name, kind):
    model = seeded(MODELS[name])
    assert error_of_the_clipped_sum(model, data(), kind) < 5e-6
    exact = model.double(), (data()[0].double(), data()[1])
    assert error_of_the_clipped_sum(*exact, kind) < 1e-12


@pytest.mark.parametrize("frozen", ["weight", "gain", "bias"])
def test_what_is_frozen_changes_nothing_of_the_rest(frozen):
    model = seeded(MODELS["one"])
    for name, p in model.named_parameters():
        p.requires_grad_(not name.endswith(frozen))
    assert error_of_the_clipped_sum(model, data(), "graph") < 5e-6


def test_weights_have_mean_zero_and_length_gain_whatever_their_scale_and_mean():
    layer = seeded(lambda: WeightStandardizedConv2d(4, 6, 3))
    rows = layer.standardized().detach().flatten(1)
    assert float(rows.mean(1).abs().max()) < 1e-7
    torch.testing.assert_close(rows.norm(dim=1), layer.gain.detach().abs(), rtol=1e-3, atol=0)
    with torch.no_grad():
        layer.weight.mul_(3.0).add_(1.7)
    torch.testing.assert_close(layer.standardized().detach().flatten(1), rows, rtol=0, atol=1e-4)


def test_it_is_the_layer_of_a_plain_convolution_with_standardized_weights():
    layer = seeded(lambda: WeightStandardizedConv2d(4, 8, (3, 2), stride=2, padding=1, groups=2))
    plain = nn.Conv2d(4, 8, (3, 2), stride=2, padding=1, groups=2)
    with torch.no_grad():
        plain.weight.copy_(layer.standardized()), plain.bias.copy_(layer.bias)
    x = data()[0]
    assert float((layer(x) - plain(x)).detach().abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: WeightStandardizedConv2d(4, 4, 1, groups=4), "fan-in 1 has no variance"),
        (lambda: WeightStandardizedLinear(1, 4), "fan-in 1 has no variance"),
        (lambda: WeightStandardizedConv2d(4, 6, 3, groups=4), "groups = 4: must divide 4 and 6"),
        (lambda: WeightStandardizedConv2d(4, 6, 3, eps=0.0), "eps = 0.0: must be above 0"),
    ],
)
def test_what_cannot_be_standardized_is_refused_when_it_is_made(make, why):
    with pytest.raises(ValueError, match=why):
        make()


def network() -> nn.Module:
    return nn.Sequential(
        WeightStandardizedConv2d(1, 4, 3), nn.ReLU(), WeightStandardizedConv2d(4, 4, 3, groups=4),
        nn.ReLU(), nn.Flatten(), WeightStandardizedLinear(16, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[nn.Module, Path]:
    """After private steps, and where it was saved."""
    model = seeded(network)
    before = [p.detach().clone() for p in model.parameters()]
    trainer = make_trainer(model=model, epochs=1).fit()
    assert all((p != was).any() for p, was in zip(model.parameters(), before, strict=True))
    path = trainer.save(tmp_path_factory.mktemp("saved") / "mine", input_range=(0, 1))
    return model.eval(), path


def test_trained_privately_and_exported_it_is_plain_layers_of_the_same_bytes_everywhere(trained):
    from dpsgd_torch.export.boards import board
    from dpsgd_torch.export.compiler import compile_model, to_channels_last
    from dpsgd_torch.export.emulate import run_on
    from dpsgd_torch.export.from_onnx import from_onnx
    from dpsgd_torch.export.graph import Activation, Convolution, Linear
    from dpsgd_torch.export.host import run_on_host
    from dpsgd_torch.export.reference import run
    from dpsgd_torch.export.saved_model import read_saved_model
    from dpsgd_torch.export.tflm import interpret
    from dpsgd_torch.export.to_c import to_c
    from dpsgd_torch.export.to_onnx import answers
    from dpsgd_torch.export.to_tflite import to_int8_tflite
    from dpsgd_torch.export.toolchain import has, needs

    model, path = trained
    written = read_saved_model(path).subject.graph
    kinds = [type(layer) for layer in from_onnx(written).layers]
    assert kinds == [Convolution, Activation, Convolution, Activation, Linear]
    x = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    assert answers(written, x) == pytest.approx(model(x).detach().numpy(), abs=1e-5)
    program = compile_model(written, input_range=(0, 1), public_inputs=x.numpy())
    given = program.quantize(to_channels_last(x.numpy()))
    norm = run(program, given)
    assert len(np.unique(norm)) > 20
    assert (interpret(to_int8_tflite(program), given) == norm).all()
    if has("gcc"):
        assert (run_on_host(to_c(program), given, "gcc") == norm).all()
    for name in ("netduinoplus2", "unicorn-m3"):
        if all(has(tool) for tool in needs(board(name))):
            assert (run_on(board(name), to_c(program), given).outputs == norm).all()
