"""Shapes and orders that people write: what moves no byte is free, and none is a wrong one."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from every_back_end import every_byte, in_c
from of_function import Function as Do
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.compiler import compile_model, in_memory
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import evaluate
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import arena_of
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_int8_tflite


class Gate(nn.Module):
    """Squeeze and excite over a line."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 4)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x.mean(-1))).unsqueeze(-1)


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        deep = torch.relu(self.up(torch.relu(self.down(x))))
        return torch.sigmoid(self.last(torch.cat([x, F.interpolate(deep, scale_factor=2)], 1)))


def line(*layers):
    """Between a Conv1d and a linear layer that tells every value from every other."""
    return nn.Sequential(nn.Conv1d(4, 4, 1), *layers, nn.Flatten(), nn.LazyLinear(3))


def picture(*layers):
    return nn.Sequential(nn.Conv2d(2, 8, 1), *layers, nn.Flatten(), nn.LazyLinear(3))


LINE, PICTURE = (4, 9), (2, 4, 6)
RAMP = torch.linspace(-1, 1, 192)
NETS = {
    "a line, then a picture one cell wide": (
        line(nn.ReLU(), Do(lambda x: x.unsqueeze(-1)), nn.Conv2d(4, 3, (3, 1))), LINE,
        "Conv2D View Conv2D Dense"),
    "a line, then a picture one cell high": (
        line(nn.ReLU(), Do(lambda x: x.unsqueeze(2)), nn.Conv2d(4, 3, (1, 3))), LINE,
        "Conv2D Conv2D Dense"),
    "a line as a picture of one channel": (
        line(Do(lambda x: x.unsqueeze(1)), nn.Conv2d(1, 3, 3)), LINE, "Conv2D Pick Conv2D Dense"),
    "a picture as a line": (
        picture(nn.Flatten(2), nn.ReLU(), nn.Conv1d(8, 2, 3)), PICTURE, "Conv2D View Conv2D Dense"),
    "a vector becomes a picture": (
        nn.Sequential(nn.Linear(6, 24), nn.ELU(), nn.Unflatten(1, (4, 3, 2)), nn.BatchNorm2d(4),
                      nn.ReLU(), nn.Conv2d(4, 2, 2)), (6,),
        "Dense Curve Dense View Conv2D"),
    "a generator": (
        nn.Sequential(nn.Linear(6, 24), Do(lambda x: x.view(-1, 4, 3, 2)), nn.ReLU(),
                      nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.ReLU(),
                      nn.ConvTranspose2d(3, 2, 3, 2, 1, 1), nn.Tanh()),
        (6,), "Dense View Conv2D Pick Conv2D Table Pick"),
    "a vector of samples": (
        nn.Sequential(Do(lambda x: x.view(-1, 1, 8, 5)), nn.Conv2d(1, 3, 3), nn.Flatten(),
                      nn.LazyLinear(2)), (40,), "Conv2D Dense"),
    "a spectrogram without its channel": (
        nn.Sequential(Do(lambda x: x.unsqueeze(1)), nn.Conv2d(1, 3, 3), nn.Flatten(),
                      nn.LazyLinear(2)), (8, 5), "Conv2D Dense"),
    "(time, sensors)": (
        nn.Sequential(Do(lambda x: x.transpose(1, 2)), nn.Conv1d(4, 3, 3), nn.Flatten(),
                      nn.LazyLinear(2)), (9, 4), "Conv2D Dense"),
    "(height, width, channels)": (
        nn.Sequential(Do(lambda x: x.permute(0, 3, 1, 2)), nn.Conv2d(2, 3, 3), nn.Flatten(),
                      nn.LazyLinear(2)), (4, 6, 2), "Conv2D Dense"),
    "a linear layer at each time": (
        nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.Flatten(), nn.LazyLinear(2)),
        (9, 4), "Conv2D Conv2D Dense"),
    "a picture flattened at the end": (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), PICTURE, "Conv2D Pick"),
    "channels shuffled": (
        picture(nn.Conv2d(8, 8, 1, groups=2), nn.ChannelShuffle(2),
                nn.Conv2d(8, 8, 3, groups=8, padding=1)), PICTURE,
        "Conv2D Conv2D Pick Conv2D Dense"),
    "pixels shuffled": (
        picture(nn.PixelShuffle(2), nn.Conv2d(2, 3, 2)), PICTURE, "Conv2D Pick Conv2D Dense"),
    "a causal convolution, cut": (
        line(nn.Conv1d(4, 4, 3, padding=4, dilation=2), Do(lambda x: x[:, :, :-4]), nn.ReLU()),
        LINE, "Conv2D Conv2D Dense"),
    "a causal convolution, padded": (
        line(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(4, 4, 3, dilation=2, groups=4), nn.ReLU()),
        LINE, "Conv2D Conv2D Dense"),
    "dilated both ways": (
        picture(nn.Conv2d(8, 4, 3, padding=2, dilation=2),
                nn.Conv2d(4, 8, (2, 3), dilation=(2, 1), groups=4),
                nn.Conv2d(8, 4, 2, dilation=(1, 3), groups=2)),
        (2, 7, 6), "Conv2D Conv2D Conv2D Conv2D Dense"),
    "the last step": (line(Do(lambda x: x[:, :, -1])), LINE, "Conv2D Pick Dense"),
    "every other step": (line(Do(lambda x: x[:, :, 1::2])), LINE, "Conv2D Pick Dense"),
    "gated by its other half": (line(nn.GLU(1)), LINE, "Conv2D Pick Pick Table Mul Dense"),
    "squeeze and excite": (line(Gate()), LINE, "Conv2D Mean Dense Table View Mul Dense"),
    "less at the end": (line(Do(lambda x: F.pad(x, (1, -2)))), LINE, "Conv2D Pick Pad Dense"),
    "a part of a flattened picture": (
        picture(nn.Flatten(), Do(lambda x: x[:, 5:50:3])), PICTURE, "Conv2D Pick Pick Dense"),
    "parts of a flattened picture": (
        picture(nn.Flatten(), Do(lambda x: torch.mul(*x.split([50, 50, 92], 1)[:2]))), PICTURE,
        "Conv2D Pick Pick Pick Mul Dense"),
    "a flattened picture, shifted by feature": (
        picture(nn.Flatten(), nn.ReLU(), Do(lambda x: x * RAMP + RAMP)), PICTURE,
        "Conv2D Pick Dense"),
    "the softmax of a flattened picture": (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Softmax(1), nn.Linear(24, 3)), PICTURE,
        "Conv2D View Softmax Dense"),
    "a mean of channels": (picture(Do(lambda x: x.mean(1))), PICTURE, "Conv2D Pick Mean Dense"),
    "a U": (Unet(), PICTURE, "Conv2D Conv2D Pick Requantize Concat Conv2D Table"),
    "rounded up": (
        picture(nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)), (2, 7, 5),
        "Conv2D MaxPool2D AveragePool2D Dense"),
    "rounded up, cells outside counted": (
        line(nn.AvgPool1d(3, 2, 1, ceil_mode=True)), (4, 8), "Conv2D Pad AveragePool2D Dense"),
    "slopes by channel": (line(nn.PReLU(4)), LINE, "Conv2D Clamp Clamp Conv2D Add Dense"),
    **{
        f"transposed {kind.__name__[-2:]} {how}": (
            nn.Sequential(kind(channels, 3, *how), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)),
            shape, None)
        for how in ((2, 2), (3, 2, 1), (2, 3))
        for kind, channels, shape in ((nn.ConvTranspose1d, 4, (4, 5)),
                                      (nn.ConvTranspose2d, 2, (2, 3, 4)))
    },
}  # fmt: skip


@functools.cache
def compiled(name):
    model, shape, _ = NETS[name]
    torch.manual_seed(0)
    inputs = torch.rand(16, *shape) * 2 - 1
    model(inputs[:2])
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
    with torch.no_grad():
        wanted = model.eval()(inputs).numpy()
    written = to_onnx(model, shape, {})
    program = compile_model(written, input_range=(-1, 1), public_inputs=inputs.numpy())
    if wanted.ndim > 2:
        wanted = np.moveaxis(wanted, 1, -1)
    return written, in_memory(inputs.numpy(), program), wanted.reshape(len(inputs), -1), program


@pytest.mark.parametrize("name", NETS)
def test_integers_follow_torch_and_the_interpreter_follows_them(name):
    written, inputs, wanted, program = compiled(name)
    real = evaluate(from_onnx(written), inputs)[-1].reshape(wanted.shape)
    assert real == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    out = program.output
    found = out.scale * (run(program, program.quantize(inputs)) - np.float64(out.zero_point))
    assert np.abs(found.reshape(wanted.shape) - wanted).max() < 0.08 * np.ptp(wanted)
    given = every_byte(program, 8)
    assert (interpret(to_int8_tflite(program), given) == run(program, given)).all()


@pytest.mark.parametrize("name", [name for name, (*_, steps) in NETS.items() if steps])
def test_what_moves_no_byte_is_no_step(name):
    steps = compiled(name)[3].steps
    kinds = [type(step.operation).__name__.removesuffix("Int8") for step in steps]
    assert " ".join(kinds) == NETS[name][2]


def test_c_gives_the_same_bytes():
    programs = {index: compiled(name)[3] for index, name in enumerate(NETS)}
    found = in_c(programs, sanitize=False, share=True)
    assert not {list(NETS)[index]: count for (_, index), count in found.items()}


def test_a_view_takes_no_memory():
    program = compiled("a picture as a line")[3]
    assert [at is None for at in arena_of(program).tensors] == [True, False, True, False, True]


def test_a_tensor_that_two_orders_read_is_copied_for_one_of_them():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv = nn.Linear(3, 8), nn.Conv2d(2, 2, 1)
            self.last = nn.Linear(8, 8)

        def forward(self, x):
            wide = self.first(x)
            return self.last(wide) + self.conv(wide.view(-1, 2, 2, 2)).flatten(1)

    torch.manual_seed(0)
    model, inputs = Two().eval(), torch.rand(5, 3)
    graph = from_onnx(to_onnx(model, (3,), {}))
    found = evaluate(graph, inputs.numpy())[-1]
    assert found == pytest.approx(model(inputs).detach().numpy(), abs=1e-5)


REFUSED = {
    "attention": (Do(lambda x: x @ x.transpose(1, 2)), "MatMul.*two computed tensors.*Conv1d"),
    "softmax of logs": (nn.Sequential(nn.Flatten(), nn.LogSoftmax(1)), "LogSoftmax.*end with what"),
    "circular": (nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), "Pad.*mode=wrap"),
    "bilinear": (
        nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Upsample(scale_factor=2, mode="bilinear")),
        "Resize.*mode=linear.*nearest"),
    "backwards": (Do(lambda x: x.flip(-1)), "Slice.*only forwards"),
    "sizes that do not divide": (nn.AdaptiveAvgPool1d(4), "Transpose.*9 is divided by 1, 3, 9"),
    "a group of transposed ones": (nn.ConvTranspose1d(4, 4, 2, groups=2), "ConvTranspose.*group=2"),
    "another number around": (nn.ConstantPad1d(1, 2.0), "Pad.*pad with zeros"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_says_what_to_write_instead(name):
    middle, words = REFUSED[name]
    model = nn.Sequential(nn.Conv1d(4, 4, 1), middle).eval()
    with pytest.raises(ExportError, match=words) as refusal:
        from_onnx(to_onnx(model, LINE, {}))
    assert "\n" not in str(refusal.value)
