"""Norms of an example's own statistics: within one unit of float64, and the same bytes everywhere.

Layers are drawn at random: rows 1–3, positions 1–29 or up to 8,000, groups 1–4, depths 1–8 or up
to 800; gains and biases normal × 10^U(−2, 2), a tenth all zero; eps of 0, 1e-12, 1e-5, 1e-3, 1;
input scales 10^U(−5, 1), a tenth 10^U(−25, 10); output ranges the certain ones × 1, 0.3 or 0.1.
Inputs are uniform, constant, constant but for one value, normal about anything, or of both ends.
"""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import board
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.emulate import run_on
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import Graph, evaluate
from dpsgd_torch.export.host import run_many_on_host, run_on_host
from dpsgd_torch.export.kinds.group_norm import MOST, GroupNorm, Groups, inverse_root
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import intervals
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import answers, to_onnx
from dpsgd_torch.export.to_tflite import to_float_tflite, to_int8_tflite
from dpsgd_torch.export.toolchain import has, needs

COUNT = 15
TINY_SCALES = (33, 107, 112)  # seeds for which the variance is shifted to the right
EPSILONS = (1e-5, 1e-5, 1e-3, 0.0, 1e-12, 1.0)


def drawn(seed: int) -> tuple[GroupNorm, Program, np.ndarray]:
    """A layer, its program and int8 inputs."""
    rng = np.random.default_rng(seed)
    positions = int(rng.integers(1, 30)) if rng.random() < 0.7 else 1
    depth = int(rng.integers(1, 9)) if rng.random() < 0.9 else int(rng.integers(100, 800))
    groups = Groups(int(rng.integers(1, 4)), positions, int(rng.integers(1, 5)), depth)
    if rng.random() < 0.1:
        groups = Groups(1, int(rng.integers(1000, 8000)), 1, 8)
    channels = groups.groups * groups.depth
    gain, bias = (
        (rng.normal(size=channels) * 10 ** rng.uniform(-2, 2)).astype(np.float32) for _ in range(2)
    )
    layer = GroupNorm(
        groups, gain * np.float32(rng.random() < 0.9), bias, float(rng.choice(EPSILONS))
    )
    power = rng.uniform(-25, 10) if rng.random() < 0.1 else rng.uniform(-5, 1)
    ends = (np.array([-128, 127]) - int(rng.integers(-128, 128))) * 10.0**power
    graph = Graph((layer,), ((groups.rows * groups.positions, 1, channels),) * 2)
    low, high = intervals(graph, (float(ends[0]), float(ends[1])))[1]
    cut = float(rng.choice([1.0, 0.3, 0.1]))
    ranges = [(*map(float, ends),), (min(low.min() * cut, 0.0), max(high.max() * cut, 0.0))]
    return layer, quantize(graph, ranges), inputs(rng, graph.shapes[0])


def coarse(program: Program) -> Program:
    """With three bits of fraction, so that each rounding on the way shows in the bytes."""
    (step,) = program.steps
    fewer = step.operation.fraction - 3
    operation = replace(
        step.operation,
        fraction=3,
        down=step.operation.down + fewer,
        offset=step.operation.offset >> fewer,
    )
    return Program(program.input, (replace(step, operation=operation),))


def inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    rows = []
    for kind in range(COUNT):
        row = np.full(shape, rng.integers(-128, 128))
        match kind % 5:
            case 0:
                row = rng.integers(-128, 128, shape)
            case 2:
                row.reshape(-1)[rng.integers(row.size)] = rng.integers(-128, 128)
            case 3:
                row = np.round(rng.normal(rng.uniform(-100, 100), rng.uniform(0.3, 40), shape))
            case 4:
                row = rng.choice([-128, 127], shape)
        rows.append(np.clip(row, -128, 127))
    return np.array(rows).astype(np.int8)


def off(layer: GroupNorm, program: Program, given: np.ndarray) -> float:
    """Output units from float64, which has no rounding to int8."""
    real = (given - np.float64(program.input.zero_point)) * program.input.scale
    wanted = layer.apply(real) / program.output.scale + program.output.zero_point
    return float(np.abs(run(program, given) - np.clip(wanted, -128, 127)).max())


def test_integers_are_within_half_a_unit_and_a_hundredth_of_float64():
    assert max(off(*drawn(seed)) for seed in range(120)) < 0.51


def test_scales_so_small_that_epsilon_is_all_are_among_the_draws():
    widened = [drawn(seed)[1].steps[0].operation.widen for seed in TINY_SCALES]
    assert widened == [-63, -40, -10]


def test_a_gain_a_hundredth_too_large_would_be_seen():
    layer, program, given = drawn(3)
    larger = GroupNorm(layer.groups, layer.gain * 1.01, layer.bias, layer.epsilon)
    assert off(layer, program, given) < 0.51 < off(larger, program, given)


@pytest.mark.parametrize(
    ("compiler", "sanitize"), [("gcc", True), ("clang", False), ("zig", False)], ids=str
)
def test_host_c_gives_the_same_bytes(compiler, sanitize):
    if not has("ziglang" if compiler == "zig" else compiler):
        pytest.skip(f"{compiler} is missing")
    draws = [drawn(seed)[1:] for seed in (*range(8), *TINY_SCALES)]
    draws += [(coarse(program), given) for program, given in draws]
    models = [(to_c(program, f"m{i}"), given) for i, (program, given) in enumerate(draws)]
    for found, (program, given) in zip(
        run_many_on_host(models, compiler, sanitize), draws, strict=True
    ):
        assert (found.reshape(COUNT, -1) == run(program, given).reshape(COUNT, -1)).all()


@pytest.mark.parametrize("name", ["netduinoplus2", "microbit", "stm32vldiscovery", "unicorn-m3",
                                  "riscv32-virt"])  # fmt: skip
def test_boards_give_the_same_bytes(name):
    if not all(has(tool) for tool in needs(board(name))):
        pytest.skip(f"{name} is not emulated here")
    for seed in (4, 8, 30):  # rows, groups, one position and several
        _, program, given = drawn(seed)
        program = coarse(program) if seed == 30 else program
        answer = run_on(board(name), to_c(program), given).outputs
        assert (answer.reshape(COUNT, -1) == run(program, given).reshape(COUNT, -1)).all()


def test_the_inverse_root_is_right_to_28_bits():
    x = np.concatenate(
        [np.linspace(2**30, 2**32 - 1, 20_001).astype(np.uint64), [2**30, 2**32 - 1]]
    ).astype(np.uint64)
    wanted = 1 / np.sqrt(x.astype(np.float64) / 2**30)
    assert np.abs(inverse_root(x) / 2**31 - wanted).max() < 2.0**-28


def test_a_group_larger_than_its_sums_are_proven_for_is_refused():
    groups = Groups(1, MOST // 8 + 1, 1, 8)
    layer = GroupNorm(groups, np.ones(8, np.float32), np.zeros(8, np.float32), 1e-5)
    shape = (groups.positions, 1, 8)
    with pytest.raises(ExportError, match=r"65,544 values in a group.*more groups"):
        quantize(Graph((layer,), (shape, shape)), [(0.0, 1.0), (-1.0, 1.0)])
    largest = GroupNorm(Groups(1, MOST // 8, 1, 8), layer.gain, layer.bias, 1e-5)
    shape = (MOST // 8, 1, 8)
    program = quantize(Graph((largest,), (shape, shape)), [(0.0, 1.0), (-256.0, 256.0)])
    given = np.full((3, *shape), 127, np.int8)
    given[0, ::2], given[1, 0, 0, 0] = -128, -128
    assert off(largest, program, given) < 0.51
    if has("gcc"):
        found = run_on_host(to_c(program), given, "gcc", sanitize=True)
        assert (found.reshape(given.shape) == run(program, given)).all()


class OverChannels(nn.Module):
    """LayerNorm as ConvNeXt has it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


PICTURE, ROW = (8, 5, 6), (8,)


def norms_of_pictures() -> nn.Module:
    return nn.Sequential(
        *(nn.GroupNorm(groups, 8) for groups in (4, 1, 8)), nn.GroupNorm(4, 8, affine=False),
        nn.LayerNorm(PICTURE), OverChannels(), nn.InstanceNorm2d(8, affine=True), nn.ReLU(),
        nn.Flatten(), nn.Linear(240, 3),
    )  # fmt: skip


def norms_of_lines_and_features() -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(56, 8), nn.LayerNorm(8), nn.ReLU(),
        nn.Linear(8, 8), nn.GroupNorm(2, 8), nn.LayerNorm(8, bias=False), nn.Linear(8, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "shape", "norms"),
    [(norms_of_pictures, PICTURE, 7), (norms_of_lines_and_features, (8, 7), 4)],
)
def test_what_torch_exports_is_read_as_one_layer_each(make, shape, norms):
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(1.0, 0.3)
    written, x = to_onnx(module, shape, {}), torch.randn(9, *shape) * 2 + 1
    graph = from_onnx(written)
    assert [type(layer) for layer in graph.layers].count(GroupNorm) == norms
    assert len(graph.layers) == len([m for m in module if not isinstance(m, nn.Flatten)])
    found, wanted = evaluate(graph, to_channels_last(x.numpy()))[-1], answers(written, x)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    program = compile_model(written, input_range=(-8, 10), public_inputs=x.numpy())
    given = program.quantize(to_channels_last(x.numpy()))
    real = program.output.scale * (run(program, given) - np.float64(program.output.zero_point))
    assert np.abs(real - wanted).max() < 0.1 * np.abs(wanted).max()
    if has("gcc"):
        assert (run_on_host(to_c(program), given, "gcc") == run(program, given)).all()


def operator(op_type: str, shape, opset: int, *constants: np.ndarray, **attributes):
    names = [f"c{i}" for i in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", *names], ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, *shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(c.astype(np.float32), n)
         for n, c in zip(names, constants, strict=True)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize(("opset", "gains"), [(18, 2), (21, 8)])
def test_group_normalization_has_a_gain_a_group_and_since_opset_21_a_channel(opset, gains):
    rng = np.random.default_rng(0)
    constants = [rng.normal(size=gains) for _ in range(2)]
    read = from_onnx(
        operator("GroupNormalization", PICTURE, opset, *constants, num_groups=2, epsilon=1e-3)
    )
    x = rng.normal(size=(4, *PICTURE)).astype(np.float32)
    with torch.no_grad():
        plain = nn.functional.group_norm(torch.tensor(x), 2, eps=1e-3).numpy()
    gain, bias = (np.repeat(c, 8 // gains)[:, None, None] for c in constants)
    wanted = to_channels_last(plain * gain + bias)
    assert evaluate(read, to_channels_last(x))[-1] == pytest.approx(wanted, abs=1e-5)


REFUSED = {
    "of rows": (operator("LayerNormalization", PICTURE, 17, np.ones(6)), "values lie apart"),
    "of examples": (operator("LayerNormalization", ROW, 17, np.ones(8), axis=0), "mix examples"),
    "of 3 groups": (
        operator("GroupNormalization", PICTURE, 21, np.ones(8), np.ones(8), num_groups=3),
        "num_groups=3 does not divide 8",
    ),
    "a gain of 5": (operator("LayerNormalization", ROW, 17, np.ones(5)), "does not fit"),
    "no epsilon": (
        operator("LayerNormalization", ROW, 17, np.ones(8), epsilon=-1.0), "epsilon=-1.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_norm_of_channels_is_refused_by_name(name):
    written, why = REFUSED[name]
    with pytest.raises(ExportError, match=f"operator = (Layer|Group)Normalization.*{why}"):
        from_onnx(written)


def test_tensorflow_lite_is_refused_with_what_to_do_instead():
    written = operator("LayerNormalization", ROW, 17, np.ones(8))
    program = compile_model(written, input_range=(-1, 1))
    for attempt in (
        lambda: to_int8_tflite(program),
        lambda: to_float_tflite(from_onnx(written), {}),
    ):
        with pytest.raises(ExportError, match=r"GroupNorm: TensorFlow Lite.*--to c.*WeightStand"):
            attempt()


def test_a_bias_is_not_added_to_a_tensor_that_is_read_by_another_name():
    """y = Reshape(norm) + c, and norm itself is read as well: c must not reach the other reader."""
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("LayerNormalization", ["x", "gain"], ["n"]),
            node("Reshape", ["n", "shape"], ["r"]),
            node("Add", ["r", "c"], ["a"]),
            node("Add", ["n", "a"], ["y"]),
        ], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(8, np.float32), "gain"),
         numpy_helper.from_array(np.ones(8, np.float32), "c"),
         numpy_helper.from_array(np.array([1, 8]), "shape")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    inputs = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in inputs])
    assert evaluate(from_onnx(model), inputs)[-1] == pytest.approx(expected, abs=1e-5)
