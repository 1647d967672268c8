"""The ONNX file computes what the model does, as far as float32 can tell."""

import copy

import pytest
import torch
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.to_onnx import TOLERANCE, refuse_difference, to_onnx


def noisy_model(scale: float) -> nn.Module:
    """Weights like those of a run under much noise: large, and cancelling in the last layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        model.append(nn.Linear(64, 2))
        for p in model.parameters():
            nn.init.normal_(p, std=scale)
        half = model[4].weight.data[:, :32]
        model[4].weight.data[:, 32:] = -half
        model[2].weight.data[32:] = model[2].weight.data[:32] + 1e-3
        model[2].bias.data[32:] = model[2].bias.data[:32]
    return model.eval()


@pytest.fixture
def inputs():
    return 2 * torch.rand(32, 40, generator=torch.Generator().manual_seed(1)) - 1


def test_a_model_on_which_float32_itself_is_coarse_is_not_refused(inputs):
    model = noisy_model(3.0)
    off = refuse_difference(to_onnx(model, (40,), {}), model, inputs)
    assert off > TOLERANCE  # else this test shows nothing


@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_a_weight_that_changed_is_noticed(inputs, scale):
    model = noisy_model(scale)
    other = copy.deepcopy(model)
    other[2].weight.data[3, 5] *= 1.001
    with pytest.raises(ExportError, match="from float64"):
        refuse_difference(to_onnx(other, (40,), {}), model, inputs)


def normed(count):
    """Norms of large pictures with little in them, which onnxruntime takes 10 times as coarsely."""
    norms = [nn.GroupNorm(1, 8) for _ in range(count)]
    for norm in norms[:-1]:
        nn.init.constant_(norm.weight, 0.03)
        nn.init.constant_(norm.bias, 5.0)
    return nn.Sequential(*norms).eval()


def test_norms_that_onnxruntime_takes_coarsely_are_not_refused_and_a_changed_weight_is():
    generator = torch.Generator().manual_seed(0)
    pictures = 5 + 0.1 * torch.rand(2, 8, 80, 80, generator=generator)
    model = normed(16)
    off = refuse_difference(to_onnx(model, (8, 80, 80), {}), model, pictures)
    assert off > TOLERANCE  # else this test shows nothing
    other = copy.deepcopy(model)
    other[-1].weight.data[3] *= 1.01
    with pytest.raises(ExportError, match=r"more than 0.00016"):
        refuse_difference(to_onnx(other, (8, 80, 80), {}), model, pictures)
