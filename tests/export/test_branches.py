"""Graphs whose tensors have several readers: every back end gives the same bytes."""

import numpy as np
import pytest
import torch
from torch import nn

from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import evaluate
from dpsgd_torch.export.host import run_on_host
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import arena_of, to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_float_tflite, to_int8_tflite
from dpsgd_torch.export.toolchain import has

SHAPE, COUNT = (3, 6, 6), 40


class Residual(nn.Module):
    """Two blocks, in the second of which a tensor is read three times."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.side = nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(144, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        y = self.inner(x)
        x = torch.relu(x + y)
        return self.last((self.side(x) + x + y).flatten(1))


def compiled(seed: int) -> tuple[nn.Module, torch.Tensor, Program]:
    model = Residual(seed).eval()
    inputs = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)
    graph = to_onnx(model, SHAPE, {})
    return model, inputs, compile_model(graph, input_range=(-2, 2), public_inputs=inputs.numpy())


@pytest.mark.parametrize("seed", range(3))
def test_every_back_end_agrees_on_residual_blocks(seed):
    model, inputs, program = compiled(seed)
    given = program.quantize(to_channels_last(inputs.numpy()))
    norm = run(program, given)
    assert (interpret(to_int8_tflite(program), given) == norm).all()
    if has("gcc"):
        assert (run_on_host(to_c(program), given, "gcc").reshape(norm.shape) == norm).all()
    real = program.output.scale * (norm - np.float64(program.output.zero_point))
    wanted = model(inputs).detach().numpy()
    assert np.abs(real - wanted).max() < 0.1 * np.abs(wanted).max()


def test_the_float_file_computes_what_torch_does():
    model, inputs, _ = compiled(0)
    graph = from_onnx(to_onnx(model, SHAPE, {}))
    wanted = model(inputs).detach().numpy()
    assert evaluate(graph, to_channels_last(inputs.numpy()))[-1] == pytest.approx(wanted, abs=1e-5)
    assert len(to_float_tflite(graph, {})) > 1000


def test_a_tensor_is_not_overwritten_while_it_is_still_to_be_read():
    _, _, program = compiled(0)
    arena = arena_of(program)
    last = {source: step for step, reads in enumerate(program.sources) for source in reads}
    for step, made in enumerate(program.tensors[1:-1]):
        start = arena.tensors[step + 1]
        for other in range(1, step + 1):
            begin = arena.tensors[other]
            apart = start >= begin + program.tensors[other].size or begin >= start + made.size
            assert apart or last[other] <= step
