"""Kinds on their own, over scales, zero points and shapes that networks seldom show."""

import dataclasses

import numpy as np
import pytest
from every_back_end import differing, every_byte, furthest, program_of
from random_graphs import random_graph

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Activation, Convolution, Graph, Linear, Pooling, evaluate
from dpsgd_torch.export.kinds.affine import constant
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.concat import Concat
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import LeakyRelu
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.mul import Mul
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import intervals
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_tflite import to_int8_tflite

SHAPE = (5, 4, 3)


def convolution(seed=0, outputs=3):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(outputs, 1, 1, 3)).astype(np.float32)
    return Convolution(weights, rng.normal(size=outputs).astype(np.float32), Window((1, 1)), 1)


def chain(*layers, shapes=None):
    return Graph(layers, tuple(shapes or [SHAPE] * (len(layers) + 1)))


def kinds(program):
    return [type(step.operation).__name__ for step in program.steps]


def off_in_tflm(program):
    inputs = every_byte(program)
    norm = run(program, inputs)
    return int((interpret(to_int8_tflite(program), inputs).reshape(norm.shape) != norm).sum())


ONE = {
    "clip": (Clip(-0.7, 0.4), SHAPE),
    "hard swish": (HardSwish(), SHAPE),
    "leaky relu": (LeakyRelu(0.2), SHAPE),
    "steep relu": (LeakyRelu(90.0), SHAPE),
    "mean of both": (Mean((0, 1), True), (1, 1, 3)),
    "mean of columns": (Mean((0,), False), (4, 3)),
    "mean of rows": (Mean((1,), True), (5, 1, 3)),
}


@pytest.mark.parametrize("name", ONE)
def test_scales_of_any_size_and_any_zero_point(name):
    """A layer alone, ranges drawn: what comes in from 1e-6 to 1e6, what goes out up to 1000 off."""
    layer, shape = ONE[name]
    rng = np.random.default_rng(0)
    for _ in range(60):
        low, high = sorted(rng.uniform(-1, 1, 2)) if rng.random() < 0.5 else (-1.0, 1.0)
        size = 10 ** rng.uniform(-6, 6)
        before = (min(low, 0) * size, max(high, 0) * size)
        factor = 10 ** rng.uniform(-3, 3)
        after = (before[0] * factor, before[1] * factor)
        graph = chain(layer, shapes=(SHAPE, shape))
        assert off_in_tflm(quantize(graph, [before, after])) == 0, (before, after)


def test_products_of_any_size():
    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b, out = 10 ** rng.uniform(-4, 4, 3)
        graph = Graph((convolution(), Mul()), (SHAPE,) * 3, ((0,), (1, 0)))
        assert off_in_tflm(quantize(graph, [(-a, a / 3), (0, b), (-out, out)])) == 0


@pytest.mark.parametrize("size", [1e-3, 0.3, 2.0, 30.0])
def test_integers_are_near_the_reals(size):
    inputs = np.random.default_rng(0).uniform(-size, size, (30, *SHAPE)).astype(np.float32)
    for name, (layer, shape) in ONE.items():
        graph = chain(layer, shapes=(SHAPE, shape))
        program = program_of(graph, (-size, size))
        slope = {"hard swish": 1.5, "steep relu": 90.0}.get(name, 1.0)
        half = 0.5 * slope * program.input.scale / program.output.scale  # of the input's rounding
        assert furthest(graph, program, inputs) < half + (1.5 if name == "hard swish" else 0.6), (
            name
        )


@pytest.mark.parametrize("clamp", [(0.0, 6.0), (-1.0, 1.0), (0.0, 0.5), (-0.3, 0.2)])
def test_a_clamp_is_its_layers_saturation(clamp):
    program = program_of(chain(convolution(), Clip(*clamp)))
    assert kinds(program) == ["Conv2D"]
    assert differing(program, sanitize=False) == {}


def test_a_pool_takes_along_what_can_be_fused_and_a_step_follows_for_what_cannot():
    pool, shapes = Pooling("average", Window((2, 2))), (SHAPE, (4, 3, 3), (4, 3, 3))
    fused = program_of(chain(pool, Clip(0.0, 6.0), shapes=shapes), (-10, 10))
    assert kinds(fused) == ["AveragePool2D"]
    assert (fused.steps[0].operation.low, fused.steps[0].operation.high) == (-1, 76)
    followed = program_of(chain(pool, Clip(0.0, 5.0), shapes=shapes), (-10, 10))
    assert kinds(followed) == ["AveragePool2D", "ClampInt8"]
    assert differing(fused, followed, sanitize=False) == {}


def test_two_clamps_in_a_row():
    graph = chain(Activation("tanh"), Clip(-0.5, 2), Clip(-np.inf, 0.25))
    program = program_of(graph)
    inputs = np.random.default_rng(0).uniform(-1, 1, (30, *SHAPE)).astype(np.float32)
    assert furthest(graph, program, inputs) < 1.1
    assert off_in_tflm(program) == 0


def joined(*between):
    """Two convolutions, one through other layers, side by side."""
    count = len(between)
    layers = (convolution(0), *between, convolution(1, 2), Concat())
    inputs = ((0,), *((i + 1,) for i in range(count)), (0,), (count + 1, count + 2))
    shapes = (SHAPE, *[SHAPE] * (count + 1), (5, 4, 2), (5, 4, 5))
    return Graph(layers, shapes, inputs)


@pytest.mark.parametrize(
    "between",
    [(), (Clip(0.0, 1.0),), (Pooling("max", Window((1, 1))),), (HardSwish(),)],
    ids=["nothing", "a clamp", "a maximum", "a table"],
)
def test_what_only_a_concatenation_reads_is_made_on_its_grid(between):
    program = program_of(joined(*between))
    assert "RequantizeInt8" not in kinds(program)
    scales = {program.tensors[source].scale for source in program.sources[-1]}
    assert scales == {program.output.scale}
    assert off_in_tflm(program) == 0


def test_an_average_keeps_its_inputs_grid_from_a_concatenation():
    """Its range is narrower than what it averages: cutting that would change the average."""
    graph = joined(Pooling("average", Window((1, 1))))
    inputs = np.random.default_rng(0).uniform(-1, 1, (30, *SHAPE)).astype(np.float32)
    program = program_of(graph, seen=inputs)
    assert kinds(program).count("RequantizeInt8") == 1
    assert furthest(graph, program, inputs) < 2
    assert off_in_tflm(program) == 0


@pytest.mark.parametrize("seed", range(60))
def test_folding_changes_no_value_and_intervals_hold_it(seed):
    graph = random_graph(seed)
    inputs = np.random.default_rng(seed).uniform(-1, 1, (8, *graph.shapes[0])).astype(np.float32)
    tensors = evaluate(graph, inputs)
    after = evaluate(fold_affine(graph), inputs)[-1]
    size = max(float(np.abs(tensor).max()) for tensor in tensors)
    assert np.abs(after - tensors[-1]).max() <= 1e-4 * max(1.0, size)
    for (low, high), tensor in zip(intervals(graph, (-1, 1)), tensors, strict=True):
        room = 1e-4 * max(1.0, float(np.abs(tensor).max()))
        assert (tensor >= low - room).all()
        assert (tensor <= high + room).all()


def test_a_constant_is_not_folded_into_a_layer_that_others_read():
    graph = Graph(
        (convolution(), constant(3, 2.0, 1.0), Concat()), (SHAPE, SHAPE, SHAPE, (5, 4, 6)),
        ((0,), (1,), (1, 2)),
    )  # fmt: skip
    inputs = np.random.default_rng(0).uniform(-1, 1, (8, *SHAPE)).astype(np.float32)
    after = fold_affine(graph)
    assert len(after.layers) == 3
    assert np.allclose(evaluate(after, inputs)[-1], evaluate(graph, inputs)[-1], atol=1e-5)


def test_a_hard_swish_of_enormous_values_is_refused():
    with pytest.raises(ExportError, match="HardSwish: values of a scale"):
        program_of(chain(HardSwish()), (-1e10, 1e10))


def test_a_factor_changed_by_one_is_noticed():
    """The comparison sees a multiplier that is off in its last byte but one."""
    graph = Graph((Mean((0, 1), False), Linear(np.eye(3, dtype=np.float32), np.zeros(3))),
                  (SHAPE, (3,), (3,)))  # fmt: skip
    program = program_of(graph)
    step = program.steps[0]
    operation = dataclasses.replace(
        step.operation, multiplier=step.operation.multiplier + (1 << 24)
    )
    changed = dataclasses.replace(
        program, steps=(dataclasses.replace(step, operation=operation), *program.steps[1:])
    )
    inputs = every_byte(program)
    assert (run(changed, inputs) != run(program, inputs)).any()
    assert differing(changed, sanitize=False).keys() == {("tflm", 0)}  # C is written from it
