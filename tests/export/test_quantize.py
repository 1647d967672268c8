"""From reals to integers: what is fused, what is shared, and no number that leaves its bits."""

import numpy as np
import pytest

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.fixed_point import multiplier, requantize
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    Graph,
    Linear,
    Pooling,
    evaluate,
)
from dpsgd_torch.export.host import run_on_host
from dpsgd_torch.export.program import Conv2D, Dense, MaxPool2D, Rescale, Window
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import ranges
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has

RELU, TANH, SOFTMAX = Activation("relu"), Activation("tanh"), Activation("softmax")
RNG = np.random.default_rng(0)


def linear(weights, bias):
    return Linear(np.array(weights, np.float32), np.array(bias, np.float32))


def program_of(*layers, shapes, input_range=(0.0, 1.0), seen=None):
    graph = Graph(tuple(layers), tuple(shapes))
    return quantize(graph, ranges(graph, input_range, seen))


def every_byte(shape):
    """Random inputs, and those that are all at one end."""
    inputs = RNG.integers(-128, 128, size=(64, *shape)).astype(np.int8)
    inputs[0], inputs[1] = -128, 127
    return inputs


def differing(program):
    inputs = every_byte(program.input.shape)
    norm = run(program, inputs)
    found = int((interpret(to_int8_tflite(program), inputs) != norm).sum())
    if has("gcc"):
        answers = run_on_host(to_c(program), inputs, "gcc")
        found += int((answers.reshape(norm.shape) != norm).sum())
    return found


def test_a_relu_becomes_the_clamp_of_the_layer_before_it():
    program = program_of(linear([[1, -1]], [0]), RELU, shapes=[(2,), (1,), (1,)])
    (step,) = program.steps
    assert isinstance(step.operation, Dense)
    assert step.output.zero_point == -128  # not half of its range is left to what a ReLU cuts
    assert step.output.scale == pytest.approx(1 / 255)


def test_a_second_relu_is_no_step():
    program = program_of(linear([[1, -1]], [0]), RELU, RELU, shapes=[(2,), (1,), (1,), (1,)])
    assert len(program.steps) == 1


def test_a_pool_shares_its_inputs_scale():
    kernel = RNG.normal(size=(3, 2, 2, 1)).astype(np.float32)
    layers = (
        Convolution(kernel, np.zeros(3, np.float32), Window((2, 2)), 1),
        RELU,
        Pooling("max", Window((2, 2))),
    )
    shapes = [(5, 5, 1), (4, 4, 3), (4, 4, 3), (3, 3, 3)]
    program = program_of(*layers, shapes=shapes)
    conv, pool = program.steps
    assert isinstance(conv.operation, Conv2D)
    assert isinstance(pool.operation, MaxPool2D)
    assert (pool.output.scale, pool.output.zero_point) == (
        conv.output.scale,
        conv.output.zero_point,
    )


def test_the_input_is_quantized_by_its_declared_range():
    program = program_of(linear([[1]], [0]), shapes=[(1,), (1,)], input_range=(-4.0, 7.0))
    ends = program.quantize(np.array([[-4.0], [7.0], [0.0]]))[:, 0]
    assert ends.tolist() == [-128, 127, program.input.zero_point]


def test_every_channel_has_a_scale_of_its_own():
    program = program_of(linear([[1, 0], [1e-3, 0]], [0, 0]), shapes=[(2,), (2,)])
    dense = program.steps[0].operation
    assert dense.weights.tolist() == [[127, 0], [127, 0]]
    assert dense.weight_scales == pytest.approx([1 / 127, 1e-3 / 127])


def test_a_dead_layer_has_scale_one():
    program = program_of(linear([[0, 0]], [0]), shapes=[(2,), (1,)])
    assert (program.output.scale, program.output.zero_point) == (1.0, 0)
    assert differing(program) == 0


def test_a_bias_stays_below_two_to_the_29_by_a_larger_scale_of_the_weights():
    program = program_of(linear([[1e-9, 1e-10]], [5.0]), shapes=[(2,), (1,)])
    dense = program.steps[0].operation
    assert 2**28 < dense.bias[0] < 2**29
    assert dense.bias[0] * program.input.scale * dense.weight_scales[0] == pytest.approx(5.0)
    assert differing(program) == 0


def test_sums_that_could_leave_32_bits_are_refused():
    fits, exceeds = 66_000, 66_500  # 2^31 / (255 × 127) = 66,309
    program_of(Linear(np.ones((1, fits)), np.zeros(1)), shapes=[(fits,), (1,)])
    with pytest.raises(ExportError, match=r"of 66500 inputs .* beyond 32 bits"):
        program_of(Linear(np.ones((1, exceeds)), np.zeros(1)), shapes=[(exceeds,), (1,)])


@pytest.mark.parametrize("size", [1e3, 1e8, 1e10, 1e14])
def test_what_only_a_relu_kills_is_not_shifted_out_of_32_bits(size):
    dead = program_of(linear([[-size, -size / 3]], [-size]), RELU, shapes=[(2,), (1,), (1,)])
    assert differing(dead) == 0
    lone = program_of(RELU, shapes=[(2,), (2,)], input_range=(-size, 0.0))
    assert isinstance(lone.steps[0].operation, Rescale)
    assert differing(lone) == 0


@pytest.mark.parametrize("most", [1e-12, 1e-9, 1e-6, 1e-3])
def test_a_relu_that_leaves_a_sliver_is_not_shifted_out_of_32_bits(most):
    after_tanh = program_of(
        linear([[-0.5, -0.5]], [most]), TANH, RELU, shapes=[(2,), (1,), (1,), (1,)]
    )
    assert differing(after_tanh) == 0
    first = program_of(RELU, shapes=[(2,), (2,)], input_range=(-1e4, most))
    assert differing(first) == 0


@pytest.mark.parametrize(
    "scales",
    [(0.004277397878468037, 0.008936505764722824), (0.06138858571648598, 0.05875474959611893)],
)
def test_a_relu_on_its_own_gets_a_scale_by_which_both_divisions_give_the_same(scales):
    """With these scales one value of 256 is off by one where they are divided in float32."""
    before, after = scales
    program = quantize(Graph((RELU,), ((64,), (64,))), [(0.0, 255 * before), (0.0, 255 * after)])
    out = program.output.scale
    assert after < out < after * (1 + 1e-5)
    numbers = np.arange(256)
    either = [
        requantize(numbers, *multiplier(float(real(before) / real(out))))
        for real in (np.float32, np.float64)
    ]
    assert (either[0] == either[1]).all()
    every = np.arange(-128, 128).astype(np.int8).reshape(4, 64)
    assert (interpret(to_int8_tflite(program), every) == run(program, every)).all()


def test_a_softmax_is_as_wide_as_its_sum_has_bits_for():
    """All equal is the largest sum: TFLM aborts at 512, where C and numpy differ."""
    program = program_of(SOFTMAX, shapes=[(511,), (511,)], input_range=(0.0, 1e-3))
    assert differing(program) == 0
    with pytest.raises(ExportError, match="over 512 features; beyond 511"):
        program_of(SOFTMAX, shapes=[(512,), (512,)])


@pytest.mark.parametrize("kind", ["tanh", "logistic"])
@pytest.mark.parametrize("end", [1e-3, 1.0, 7.9, 100.0])
def test_tables_are_within_half_a_step_of_the_function(kind, end):
    layer = Activation(kind)
    program = program_of(layer, shapes=[(1,), (1,)], input_range=(-end, end))
    every = np.arange(-128, 128).astype(np.int8)[:, None]
    real = program.input.scale * (every.astype(np.float64) - program.input.zero_point)
    wanted = evaluate(Graph((layer,), ((1,), (1,))), real)[-1]
    out = program.output
    found = out.scale * (run(program, every) - np.float64(out.zero_point))
    inside = np.abs(wanted) < 127 / 128 if kind == "tanh" else wanted < 255 / 256
    assert np.abs(found - wanted)[inside].max() <= 0.501 * out.scale
    assert (interpret(to_int8_tflite(program), every) == run(program, every)).all()


def test_weights_beyond_float32s_scales_are_refused():
    with pytest.raises(ExportError, match="must stay below 1e\\+36"):
        program_of(linear([[1e37]], [0]), shapes=[(1,), (1,)])
