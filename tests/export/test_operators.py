"""Operators as torch exports them: what they compute, and the same bytes in every back end."""

import functools

import numpy as np
import pytest
import torch
from every_back_end import differing
from of_function import Function
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import evaluate
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_float_tflite

SHAPE, COUNT = (3, 4, 6), 24


def norm(features, kind=nn.BatchNorm2d):
    made = kind(features)
    with torch.no_grad():
        for part in (made.weight, made.bias, made.running_mean):
            part.normal_()
        made.running_var.uniform_(0.2, 2)
    return made


class Between(nn.Module):
    """A convolution, what is tested, and a linear layer that tells every cell from every other."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Conv2d(3, 4, 1), middle
        with torch.no_grad():
            self.first.weight *= 4
        self.last = nn.LazyLinear(3)

    def forward(self, x):
        return self.last(self.middle(self.first(x)).flatten(1))


class SqueezeExcite(nn.Module):
    def __init__(self, flat):
        super().__init__()
        self.flat = flat
        self.one, self.two = (nn.Linear(4, 4) if flat else nn.Conv2d(4, 4, 1) for _ in range(2))

    def forward(self, x):
        y = x.mean((2, 3)) if self.flat else nn.functional.adaptive_avg_pool2d(x, 1)
        y = nn.functional.hardsigmoid(self.two(torch.relu(self.one(y))))
        return x * (y[:, :, None, None] if self.flat else y)


class Branches(nn.Module):
    """Three, one of which a product reads too."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        a, b = torch.relu(8 * self.one(x)), self.two(x).clamp(-1, 1)  # beyond the range of x
        return torch.cat([a, b, x], 1)


FUNCTIONS = {
    "x.mean((2, 3))": lambda x: x.mean((2, 3)),
    "x.amax((2, 3))": lambda x: x.amax((2, 3)),
    "x.clamp(min=-0.5)": lambda x: x.clamp(min=-0.5),
    "x / 3 - 0.5": lambda x: x / 3 - 0.5,
    "x * by channel": lambda x: x.tanh() * torch.arange(1.0, 5).view(4, 1, 1),
    "x * x": lambda x: x * x,
    "flat branches": lambda x: torch.cat([x.mean((2, 3)), x.flatten(1)], 1),
    "branches of other sides": lambda x: torch.cat(
        [nn.functional.max_pool2d(x, 2).flatten(1), x.flatten(1)], 1
    ),
}

MIDDLES = {
    **{name: Function(function) for name, function in FUNCTIONS.items()},
    **{
        str(middle): middle
        for middle in (
            nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.ReLU6(),
            nn.Hardtanh(0.25, 0.5), nn.Hardswish(), nn.Hardsigmoid(), nn.SiLU(),
            nn.LeakyReLU(0.1), norm(4),
        )
    },
    "norm after tanh": nn.Sequential(nn.Tanh(), norm(4)),
    "norm before a padded convolution": nn.Sequential(
        nn.Tanh(), norm(4), nn.Conv2d(4, 4, 3, padding=1)
    ),
    "norm before a grouped convolution": nn.Sequential(
        nn.Tanh(), norm(4), nn.Conv2d(4, 6, 3, groups=2)
    ),
    "norm of features": nn.Sequential(
        nn.Flatten(), nn.Linear(96, 8), nn.Tanh(), norm(8, nn.BatchNorm1d)
    ),
    "squeeze and excite": SqueezeExcite(flat=False),
    "squeeze and excite by linear layers": SqueezeExcite(flat=True),
    "branches": Branches(),
}  # fmt: skip


@functools.cache
def compiled(name):
    torch.manual_seed(1)
    model = Between(MIDDLES[name]).eval()
    for module in model.modules():  # those of MIDDLES were made before any seed
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    inputs = torch.rand(COUNT, *SHAPE) * 2 - 1
    with torch.no_grad():
        wanted = model(inputs).numpy()
    written = to_onnx(model, SHAPE, {})
    program = compile_model(written, input_range=(-1, 1), public_inputs=inputs.numpy())
    return written, inputs.numpy(), wanted, program


@pytest.mark.parametrize("name", MIDDLES)
def test_integers_follow_torch(name):
    written, inputs, wanted, program = compiled(name)
    given = to_channels_last(inputs)
    graph = from_onnx(written)
    assert evaluate(graph, given)[-1] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert interpret(to_float_tflite(graph, {}), given) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    out = program.output
    found = out.scale * (run(program, program.quantize(given)) - np.float64(out.zero_point))
    assert np.abs(found - wanted).max() < 0.08 * np.ptp(wanted)


def test_every_back_end_gives_the_same_bytes():
    names = list(MIDDLES)
    programs = [compiled(name)[3] for name in names]
    found = differing(*programs, sanitize=False)
    assert not {(back_end, names[i]): count for (back_end, i), count in found.items()}


def kinds(program):
    return [type(step.operation).__name__ for step in program.steps]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (str(nn.ReLU6()), ["Conv2D", "Dense"]),
        (str(nn.Hardsigmoid()), ["Conv2D", "Dense"]),
        (str(norm(4)), ["Conv2D", "Dense"]),
        ("x / 3 - 0.5", ["Conv2D", "Dense"]),
        ("norm of features", ["Conv2D", "Dense", "Table", "Dense"]),
        ("norm before a grouped convolution", ["Conv2D", "Table", "Conv2D", "Dense"]),
        ("norm before a padded convolution", ["Conv2D", "Table", "Conv2D", "Conv2D", "Dense"]),
        ("branches", ["Conv2D", "Conv2D", "Conv2D", "RequantizeInt8", "ConcatInt8", "Dense"]),
    ],
)
def test_what_can_be_taken_along_is_no_step(name, expected):
    assert kinds(compiled(name)[3]) == expected


def onnx_of(*nodes, shape=(1, 4, 5, 6), **constants):
    graph = helper.make_graph(
        list(nodes), "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def node(kind, *inputs, output="y", **attributes):
    return helper.make_node(kind, list(inputs), [output], name=f"here_{kind.lower()}", **attributes)


TANH = node("Tanh", "x", output="t")
REFUSED = {
    "a quotient": (onnx_of(TANH, node("Div", "x", "t")), r"Div \(here_div\)"),
    "a constant by column": (
        onnx_of(node("Mul", "x", "c"), c=np.arange(6)), r"Mul \(here_mul\).*one number a channel"
    ),
    "a constant that widens": (
        onnx_of(node("Add", "x", "c"), shape=(1, 1, 5, 6), c=np.ones((4, 1, 1))),
        r"Add \(here_add\)",
    ),
    "a sum that broadcasts": (
        onnx_of(
            node("GlobalAveragePool", "x", output="p"), node("Add", "x", "p"),
        ),
        r"Add \(here_add\).*of one shape",
    ),
    "a product by column": (
        onnx_of(
            node("ReduceMax", "x", "axes", output="p"), node("Mul", "x", "p"), axes=np.array([2])
        ),
        r"ReduceMax \(here_reducemax\).*all sides",
    ),
    "features of a flattened image": (
        onnx_of(
            TANH, node("Flatten", "t", output="f"), node("Mul", "f", "c"), c=np.arange(120.0)
        ),
        r"here_mul: on 120 features that neither.*put it next to one",
    ),
    "long features": (
        onnx_of(node("Tanh", "x", output="t"), node("Mul", "t", "c", output="m"),
                node("Tanh", "m"), shape=(1, 65), c=np.arange(65)),
        r"node here_mul: on 65 features",
    ),
    "a negative slope": (onnx_of(node("LeakyRelu", "x", alpha=-1.0)), r"here_leakyrelu.*alpha"),
    "ends in the wrong order": (
        onnx_of(node("Clip", "x", "a", "b"), a=2, b=1), r"Clip \(here_clip\).*lower end"
    ),
    "examples of a batch": (
        onnx_of(node("Concat", "x", "x", axis=0)), r"Concat \(here_concat\).*batch"
    ),
    "more tensors than the interpreter takes": (
        onnx_of(TANH, node("Concat", *["x", "t"] * 6, axis=1)), "of 12 tensors.*10 at most"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_is_refused_by_name(name):
    model, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        compile_model(model, input_range=(-1, 1))
