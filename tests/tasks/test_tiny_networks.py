"""MLPerf Tiny's four networks: as large as the benchmark's, padded as it pads, gradients exact."""

import math
import sys
from pathlib import Path

import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from torch import nn
from torch.nn import functional

from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.tasks.blocks import convolution, he_
from dpsgd_torch.tasks.machines.task import copying_error
from dpsgd_torch.tasks.registry import TASKS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not (BENCHMARKS / "tiny_networks.py").exists():  # an installed package has no benchmarks
    pytest.skip("benchmarks/tiny_networks.py is not here", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

from tiny_networks import SHAPES, network_of  # noqa: E402

# github.com/mlcommons/tiny, benchmark/training: what each keras_model.py's summary() tells, of all
# parameters and of those that are trained; a batch norm holds two more a channel than are trained.
PARAMETERS = {
    "speech": (24_908, 23_756),
    "wake-words": (221_794, 216_322),
    "cifar": (78_666, 78_186),
    "machines": (269_992, 267_928),
}
BOTH = pytest.mark.parametrize("norm", ["group", "standardized", "none"])
EACH = pytest.mark.parametrize("name", SHAPES)


@EACH
def test_with_norms_as_many_parameters_are_trained_as_the_benchmark_trains(name):
    whole, trained = PARAMETERS[name]
    count = sum(p.numel() for p in network_of(name, "group").parameters())
    assert count == trained
    channels = (whole - trained) // 2  # of the batch norms
    bare = sum(p.numel() for p in network_of(name, "none").parameters())
    assert bare == trained - 2 * channels


@EACH
@BOTH
def test_outputs_are_one_number_for_each_class_and_no_example_sees_another(name, norm):
    shape, outputs = SHAPES[name]
    model, inputs = network_of(name, norm), torch.rand(3, *shape)
    with torch.no_grad():
        together = model(inputs)
        alone = torch.cat([model(each[None]) for each in inputs])
    assert together.shape == (3, outputs)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


@EACH
@BOTH
def test_per_example_gradients_are_those_of_autograd_one_at_a_time(name, norm):
    shape, outputs = SHAPES[name]
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(3, *shape, generator=generator).double()
    targets, loss = torch.arange(3) % outputs, nn.CrossEntropyLoss()
    if name == "machines":
        targets, loss = torch.cat([inputs, torch.zeros(3, 2)], dim=1), copying_error
    model = network_of(name, norm).double()  # through 27 layers float32 is off by 1e-4 by itself
    assert error_of_the_clipped_sum(model, (inputs, targets), loss=per_example(loss)) < 1e-10


@pytest.mark.parametrize("size", [(49, 10), (96, 96), (24, 24), (5, 5)])
@pytest.mark.parametrize(("kernel", "stride"), [((10, 4), 2), ((3, 3), 2), ((3, 3), 1)])
def test_zeros_are_padded_where_tensorflow_pads_them(size, kernel, stride):
    model = nn.Sequential(*convolution(size, (2, 3), kernel, "none", stride=stride, relu=False))
    images = torch.rand(1, 2, *size)
    around = []
    for n, k in zip(size, kernel, strict=True):
        whole = max((math.ceil(n / stride) - 1) * stride + k - n, 0)
        around.append((whole // 2, whole - whole // 2))
    padded = functional.pad(images, (*around[1], *around[0]))
    last = model[-1]
    expected = functional.conv2d(padded, last.weight, last.bias, stride=stride)
    assert expected.shape[2:] == tuple(math.ceil(n / stride) for n in size)
    torch.testing.assert_close(model(images), expected)


@EACH
def test_a_signal_reaches_the_end_of_an_untrained_network(name):
    kind = TASKS[name]
    task = kind.made_up(kind.knobs(), 8, 4) if not kind.not_made_up else None
    inputs = task.train[0] if task else kind.public_inputs(kind.knobs())(8)
    make = task.make_model if task else _autoencoder
    outputs = make(torch.Generator().manual_seed(3))(inputs)
    assert 1e-3 < outputs.std(dim=0).mean() < 10


def _autoencoder(generator):
    from dpsgd_torch.tasks.machines.model import autoencoder

    return autoencoder(generator, "none")


@EACH
def test_standardized_weights_begin_with_signals_as_strong_as_without_norms(name):
    kind = TASKS[name]
    spread = {}
    for norm in ("none", "standardized"):
        knobs = kind.knobs(norm=norm)
        model = kind.architecture(knobs, tuple(map(str, range(SHAPES[name][1]))))
        he_(model, torch.Generator().manual_seed(0))
        with torch.no_grad():
            spread[norm] = float(model(kind.public_inputs(knobs)(16)).std(dim=0).mean())
    assert 1 / 3 < spread["standardized"] / spread["none"] < 6  # with gains of 1: 1e-6 to 1/4
