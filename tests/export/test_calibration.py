"""Passes on the float graph: the same function, nearer integers, and nothing of private records."""

import numpy as np
import pytest
from random_networks import random_network

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.export.calibration.bias import bias_corrected
from dpsgd_torch.export.calibration.equalize import equalized
from dpsgd_torch.export.calibration.own_scale import with_own_scale
from dpsgd_torch.export.calibration.passes import PLAIN, Calibration, calibration_of
from dpsgd_torch.export.calibration.reach import REACHES
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.from_onnx import from_onnx, to_channels_last
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    Graph,
    Linear,
    Padding,
    Pooling,
    evaluate,
)
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import ranges
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.target import CALIBRATIONS
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_tflite import to_int8_tflite

RELU, NORMAL = Activation("relu"), np.random.default_rng(0).normal


def conv(out, kernel, inside, groups=1):
    """Output channels of sizes that differ by a factor of some hundred."""
    sizes = np.logspace(-1.5, 0.5, out).reshape(-1, 1, 1, 1)
    weights = (NORMAL(size=(out, kernel, kernel, inside)) * sizes).astype(np.float32)
    bias = (NORMAL(size=out) * sizes.ravel()).astype(np.float32)
    return Convolution(weights, bias, Window((kernel, kernel)), groups)


def stack():
    """Full, depthwise, grouped and linear layers, with all that scales along between them."""
    weights = NORMAL(size=(3, 2 * 2 * 6)).astype(np.float32)
    layers = (
        conv(4, 3, 2), RELU, Padding(((1, 1), (0, 0))), conv(4, 2, 1, groups=4), RELU,
        Pooling("max", Window((2, 2))), conv(6, 1, 2, groups=2), Pooling("average", Window((2, 2))),
        Linear(weights, np.zeros(3, np.float32)), Linear(weights[:, :3], np.ones(3, np.float32)),
    )  # fmt: skip
    shapes = ((6, 5, 2), (4, 3, 4), (4, 3, 4), (6, 3, 4), (5, 2, 4), (5, 2, 4), (4, 1, 4),
              (4, 1, 6), (3, 1, 6), (3,), (3,))  # fmt: skip
    weights = NORMAL(size=(3, 3 * 1 * 6)).astype(np.float32)
    window = Window((2, 1))
    layers = (*layers[:7], Pooling("average", window), Linear(weights, layers[8].bias), layers[9])
    return Graph(layers, shapes), NORMAL(size=(50, 6, 5, 2)).astype(np.float32)


def test_equalised_layers_compute_the_same_function():
    graph, inputs = stack()
    before, after = evaluate(graph, inputs)[-1], evaluate(equalized(graph, inputs), inputs)[-1]
    assert np.abs(after - before).max() <= 2e-6 * np.abs(before).max()


def test_equalising_levels_what_a_depthwise_layer_reads_and_halves_the_rest():
    graph, inputs = stack()
    read = (3, 6)  # by the depthwise and by the grouped convolution
    before, after = (
        [np.quantile(np.abs(tensors[each]).reshape(-1, 4), 1 - 1e-4, axis=0) for each in read]
        for tensors in (evaluate(graph, inputs), evaluate(equalized(graph, inputs), inputs))
    )
    assert after[0] == pytest.approx(np.minimum(64 * before[0], before[0].max()), rel=1e-4)
    assert before[0].max() / before[0].min() > 64
    spread = [np.ptp(np.log(each[1])) for each in (before, after)]
    assert spread[1] == pytest.approx(spread[0] / 2, rel=1e-3)
    assert spread[0] > 0.3


@pytest.mark.parametrize("seed", range(20))
def test_equalised_random_networks_compute_the_same(seed):
    network = random_network(seed)
    graph, inputs = from_onnx(network.model), to_channels_last(network.inputs)
    norm, found = evaluate(graph, inputs)[-1], evaluate(equalized(graph, inputs), inputs)[-1]
    room = 1e-4 * max(1.0, np.abs(norm).max())
    assert np.abs(found - norm).max() <= room


def test_what_two_layers_read_or_a_tanh_is_left_as_it_is():
    one, other = conv(4, 1, 4), conv(4, 1, 4)
    shape = (2, 2, 4)
    branched = Graph((one, other, Add()), (shape,) * 4, ((0,), (1,), (1, 2)))
    curved = Graph((one, Activation("tanh"), other), (shape,) * 4)
    for graph in (branched, curved):
        seen = NORMAL(size=(5, *shape)).astype(np.float32)
        assert equalized(graph, seen).layers == graph.layers


def shift(graph, found, inputs):
    """Largest mean difference of an output, in units of its spread."""
    program = quantize(graph, found)
    ints = run(program, program.quantize(inputs)).astype(np.float64)
    reals = program.output.scale * (ints - program.output.zero_point)
    return lambda norm: (np.abs((reals - norm).mean(axis=0)) / norm.std(axis=0)).max()


def test_a_corrected_bias_takes_the_mean_shift_of_rounding_back():
    weights = np.full((2, 64), 1.0, np.float32)
    weights[:, ::2] = 0.0037  # rounded to 0 steps of 1/127: always down
    head = Linear(np.array([[1, 0.5], [-0.2, 0.7]], np.float32), np.zeros(2, np.float32))
    layer = Linear(weights, np.zeros(2, np.float32))
    graph = Graph((layer, RELU, head), ((64,), (2,), (2,), (2,)))
    inputs = np.random.default_rng(1).random((400, 64)).astype(np.float32)
    norm, found = evaluate(graph, inputs)[-1], ranges(graph, (0.0, 1.0), inputs)
    before = shift(graph, found, inputs)(norm)
    after = shift(bias_corrected(graph, found, inputs), found, inputs)(norm)
    assert before > 0.02, before
    assert after < before / 4


def test_biases_alone_are_corrected():
    graph, inputs = stack()
    made = bias_corrected(graph, ranges(graph, (-3.0, 3.0), inputs), inputs)
    for before, after in zip(graph.layers, made.layers, strict=True):
        if isinstance(before, Linear | Convolution):
            assert after.weights is before.weights
        else:
            assert after is before


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("seed", range(5))
def test_every_reach_stays_within_what_is_certain_and_holds_zero(reach, seed):
    network = random_network(seed)
    graph = from_onnx(network.model)
    wide = ranges(graph, network.input_range)
    tight = ranges(graph, network.input_range, to_channels_last(network.inputs), REACHES[reach])
    for (low, high), (tighter_low, tighter_high) in zip(wide, tight, strict=True):
        assert low <= tighter_low <= 0 <= tighter_high <= high


def test_the_ranges_of_least_error_have_less_of_it_than_the_margins():
    values = NORMAL(size=20_000).astype(np.float32)

    def error(ends):
        scale = (ends[1] - ends[0]) / 255
        return np.square(np.round(np.clip(values, *ends) / scale) * scale - values).mean()

    assert error(REACHES["least-error"](values)) < 0.8 * error(REACHES["margin"](values))


def test_the_plain_calibration_is_the_default_and_changes_nothing():
    network = random_network(3)
    same = [
        compile_model(network.model, input_range=network.input_range,
            public_inputs=network.inputs, **more)
        for more in ({}, {"calibration": PLAIN}, {"calibration": calibration_of("plain")})
    ]  # fmt: skip
    graph = from_onnx(network.model)
    seen = to_channels_last(network.inputs)
    same.append(quantize(graph, ranges(graph, network.input_range, seen)))
    inputs = same[0].quantize(seen)
    for each in same[1:]:
        assert np.array_equal(run(each, inputs), run(same[0], inputs))


def test_every_calibration_that_can_be_asked_for_is_there():
    for name in CALIBRATIONS:
        assert isinstance(calibration_of(name), Calibration)
    with pytest.raises(
        ExportError, match="calibration = best: must be one of plain, improved, all"
    ):
        calibration_of("best")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--to", "onnx", "--calibration", "improved"], "float32 files are not calibrated"),
        (
            ["--to", "c", "--calibration", "improved", "--calibrate-on-private-data"],
            "drop it, or --calibrate-on-private-data",
        ),
    ],
)
def test_an_order_that_calibrates_nothing_or_on_records_is_refused(flags, words, tmp_path, capsys):
    assert export([str(tmp_path), *flags]) == 2
    assert words in capsys.readouterr().err


def test_an_average_of_a_whole_image_keeps_its_precision_beside_large_values():
    """Of 100 cells one is large: in its scale an average has a step or two, in its own 256."""
    rng = np.random.default_rng(2)
    inputs = (0.02 * rng.random((200, 10, 10, 3))).astype(np.float32)
    inputs[:, 4, 4] = rng.random((200, 3))
    graph = Graph((Pooling("average", Window((10, 10))),), ((10, 10, 3), (1, 1, 3)))
    norm, off = evaluate(graph, inputs)[-1], {}
    for name in ("plain", "improved"):
        made, found = calibration_of(name)(graph, (0.0, 1.0), inputs)
        program = quantize(made, found)
        ints = run(program, program.quantize(inputs)).astype(np.float64)
        off[name] = np.abs(program.output.scale * (ints - program.output.zero_point) - norm).max()
        assert (interpret(to_int8_tflite(program), program.quantize(inputs)) == ints).all()
    assert off["plain"] > 1 / 520
    assert off["improved"] < off["plain"] / 4


def test_averages_of_parts_of_an_image_stay_pools():
    part = Pooling("average", Window((2, 2), (2, 2)))
    graph = Graph((part,), ((4, 4, 3), (2, 2, 3)))
    assert with_own_scale(graph).layers == (part,)
