"""What torch's exporter drops or changes without a word is refused by the module's path."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export import export_model
from dpsgd_torch.export.dropped import refuse_dropped
from dpsgd_torch.export.dropped_calls import refuse_dropped_calls
from dpsgd_torch.export.to_onnx import answers, to_onnx


class Named(nn.Module):
    """A layer with a path, and what the compiler needs behind it."""

    def __init__(self, layer, features):
        super().__init__()
        self.body = nn.Sequential(layer, nn.Flatten())
        self.head = nn.Linear(features, 2)

    def forward(self, inputs):
        return self.head(self.body(inputs))


REFUSED = {
    "a divisor": (nn.AvgPool2d(2, divisor_override=3), (3, 8, 8), "divisor_override = 3"),
    "a divisor in 3-d": (nn.AvgPool3d(2, divisor_override=5), (1, 4, 4, 4), "divisor_override"),
    "a window in the padding": (
        nn.AvgPool2d(3, 3, 1, ceil_mode=True), (3, 8, 8), "ceil_mode leaves out",
    ),
    "a maximum's window in the padding": (
        nn.MaxPool2d(3, 3, 1, ceil_mode=True), (3, 8, 8), "ceil_mode leaves out",
    ),
    "a 1-d window in the padding": (
        nn.AvgPool1d(3, 3, 1, ceil_mode=True), (3, 8), "ceil_mode leaves out",
    ),
    "a batch's own statistics": (
        nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 4), "without running statistics",
    ),
    "a softmax over the batch": (nn.Softmax(dim=0), (5,), "dim = 0 is the batch"),
    "one by counting from the end": (nn.Softmax(dim=-2), (5,), "dim = -2 is the batch"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_cannot_be_written_is_refused_by_its_modules_path(tmp_path, name):
    layer, shape, words = REFUSED[name]
    features = layer.eval()(torch.rand(2, *shape)).flatten(1).shape[1]
    with pytest.raises(ExportError) as refusal:
        export_model(
            Named(layer, features), input_shape=shape, input_range=(0, 1), out=tmp_path / "out"
        )
    said = str(refusal.value)
    assert said.startswith(f"body.0 = {type(layer).__name__}: ")
    assert words in said
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
def test_torchs_own_choice_of_a_softmaxs_dimension_is_the_batch_in_three():
    with pytest.raises(ExportError, match="dim = None is the batch"):
        refuse_dropped(nn.Sequential(nn.Softmax()), torch.rand(2, 3, 4))
    refuse_dropped(nn.Sequential(nn.Softmax()), torch.rand(2, 3))


KEPT = {
    "ceil_mode and padding": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 8, 8)),
    "padding not counted": (nn.AvgPool2d(3, 2, 1, True, count_include_pad=False), (2, 8, 8)),
    "circular padding": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 5)),
    "dilation": (nn.MaxPool2d(2, 2, 0, 2, ceil_mode=True), (2, 9, 9)),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_setting_that_is_written_as_it_computes_is_taken(name):
    layer, shape = KEPT[name]
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    refuse_dropped(layer.eval(), inputs)
    with torch.no_grad():
        torchs = layer(inputs).numpy()
    assert np.abs(answers(to_onnx(layer, shape, {}), inputs) - torchs).max() < 1e-5


def test_a_module_that_never_runs_is_nobodys_business():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.AvgPool2d(2, divisor_override=3)

        def forward(self, inputs):
            return inputs * 2

    model = Idle()
    refuse_dropped(model, torch.zeros(2, 3))
    assert not model.unused._forward_hooks | model.unused._forward_pre_hooks  # no trace of the look


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_windows_left_out_are_those_that_torch_leaves_out(pool):
    """The rule beside the sizes that torch gives."""
    for size in range(3, 12):
        for stride in (1, 2, 3, 4):
            for padding in (0, 1):
                layer = pool(3, stride, padding, ceil_mode=True)
                inputs = torch.zeros(1, 1, size, size)
                rounded_up = -(-(size + 2 * padding - 3) // stride) + 1
                if layer(inputs).shape[-1] == rounded_up:
                    refuse_dropped(layer, inputs)
                else:
                    with pytest.raises(ExportError, match="ceil_mode"):
                        refuse_dropped(layer, inputs)


CALLS = {
    "a divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "F.avg_pool2d", "divisor"),
    "a divisor in its place": (
        lambda x: F.avg_pool2d(x, 2, 2, 0, False, True, 5), "F.avg_pool2d", "divisor_override = 5"),
    "a window in the padding": (
        lambda x: F.avg_pool2d(x, 3, 3, 1, True), "F.avg_pool2d", "ceil_mode leaves out"),
    "a maximum's": (
        lambda x: F.max_pool2d(x, 3, padding=1, ceil_mode=True), "F.max_pool2d", "ceil_mode"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_be_written_is_refused_by_function_and_line(tmp_path, name):
    function, called, words = CALLS[name]

    class Calls(nn.Module):
        def forward(self, inputs):
            return function(inputs)

    with pytest.raises(ExportError) as refusal:
        export_model(Calls(), input_shape=(3, 8, 8), input_range=(0, 1), out=tmp_path / "out")
    assert str(refusal.value).startswith(f"{called} (test_dropped_settings.py, line ")
    assert words in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_calls_that_are_written_as_they_compute_are_taken():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            x = F.max_pool2d(x, 2, ceil_mode=True) + F.avg_pool2d(x, 2, 2, 0, True)
            return x * torch.softmax(self.mix, 0)[0]

    assert refuse_dropped_calls(Calls(), torch.rand(2, 3, 7, 7)) is None
