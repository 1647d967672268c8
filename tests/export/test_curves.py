"""Functions of one value: one table, whatever operators an exporter writes them in."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from every_back_end import every_byte, in_c, program_of
from of_function import Function
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import Graph
from dpsgd_torch.export.kinds.curve import ELU, Curve
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_int8_tflite

FUNCTIONS = {
    "gelu": F.gelu, "elu": F.elu, "elu of 2": nn.ELU(2.0),
    "selu": F.selu,
    "softplus of 2": nn.Softplus(2.0, 10.0), "mish": F.mish, "softsign": F.softsign,
    "softshrink": nn.Softshrink(0.3), "hardshrink": nn.Hardshrink(0.3),
    "logsigmoid": F.logsigmoid, "exp": torch.exp,
    "threshold": lambda x: F.threshold(x, 0.1, -0.5), "sine": lambda x: torch.sin(3 * x) / 2,
    "where": lambda x: torch.where(x > 0.2, x, 0.5 * x - 1), "log": lambda x: torch.log(x + 4),
    "root": lambda x: 1 / torch.sqrt(x.abs() + 1),
}  # fmt: skip


@functools.cache
def compiled(name):
    inputs = torch.linspace(-3, 3, 512).reshape(64, 8)
    written = to_onnx(Function(FUNCTIONS[name]).eval(), (8,), {})
    return inputs, compile_model(written, input_range=(-3, 3), public_inputs=inputs.numpy())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_one_value_is_one_table_right_to_one_step(name):
    """Of the input's rounding, times the function's slope, and half a step of the output."""
    inputs, program = compiled(name)
    assert [type(step.operation).__name__ for step in program.steps] == ["CurveInt8"]
    given = program.quantize(inputs.numpy())
    known = program.input.scale * (given - np.float64(program.input.zero_point))
    wanted = FUNCTIONS[name](torch.tensor(known, dtype=torch.float32)).numpy()
    out = program.output
    found = out.scale * (run(program, given) - np.float64(out.zero_point))
    inside = np.abs(known) <= 3  # the grid's last value is beyond the range, and saturates
    assert np.abs(found - wanted)[inside].max() < 0.502 * out.scale


def test_c_has_the_tables():
    programs = {index: compiled(name)[1] for index, name in enumerate(FUNCTIONS)}
    found = in_c(programs, sanitize=False, share=True)
    assert not {list(FUNCTIONS)[index]: count for (_, index), count in found.items()}


def test_the_interpreter_has_elu_at_any_scale():
    rng = np.random.default_rng(0)
    elu = Curve(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), ELU)
    for _ in range(60):
        size, factor = 10 ** rng.uniform(-5, 4), 10 ** rng.uniform(-2, 2)
        graph = Graph((elu,), ((256,), (256,)))
        program = quantize(graph, [(-size, size), (-size * factor, size * factor)])
        given = every_byte(program, 3)
        assert (interpret(to_int8_tflite(program), given) == run(program, given)).all(), size


def test_what_the_interpreter_has_not_is_said_with_a_way_out():
    with pytest.raises(ExportError, match=r"Gelu \(gelu_0\).*no int8 operator.*--to c, or train"):
        to_int8_tflite(compiled("gelu")[1])


def test_a_function_without_a_value_in_reach_is_refused_by_its_name():
    layer = Curve(np.log, "Log", "log_3")
    with pytest.raises(ExportError, match=r"Log.*no finite number everywhere between -1 and 1"):
        program_of(Graph((layer,), ((4,), (4,))))


def test_activations_that_had_integers_keep_them():
    """A product by a sigmoid stays two steps: the bytes of SiLU are those of yesterday."""
    graph = from_onnx(to_onnx(Function(F.silu).eval(), (8,), {}))
    assert [type(layer).__name__ for layer in graph.layers] == ["Activation", "Mul"]
