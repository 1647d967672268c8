"""Values in other orders, and the numbers of operators: nothing compiles to another function."""

import contextlib

import numpy as np
import onnxruntime
import pytest
from every_back_end import every_byte, in_c
from random_orders import random_orders
from written_onnx import flattened, model_of, node, weights

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.compiler import compile_model, in_memory, to_channels_last
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.frontend import Stream, stream_to_c
from dpsgd_torch.export.graph import Graph, evaluate
from dpsgd_torch.export.kinds.curve import ELU, Curve
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_arduino import feels_motion
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_tflite import to_int8_tflite

LINE, PICTURE = (1, 8, 3), (1, 2, 3, 4)
SHUFFLE = (
    node("Reshape", ["c", "wide"], ["s1"]), node("Transpose", ["s1"], ["s2"], perm=[0, 2, 1, 3]),
    node("Reshape", ["s2", "flat"], ["s"]),
)  # fmt: skip
SIDES = {"wide": np.array([1, 2, 4, 3]), "flat": np.array([1, 8, 3])}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
           "nearest_mode": "floor"}  # fmt: skip

READ = {
    **{
        f"a convolution's channels {operator} the same shuffled, in either order": flattened(
            node("Conv", ["x", "w"], ["c"]), *SHUFFLE, node(operator, ["c", "s"], ["d"]),
            node(operator, ["s", "d"], ["a"]),
            shape=LINE, features=24, w=weights(8, 8, 1), **SIDES,
        )
        for operator in ("Add", "Sub", "Mul")
    },
    "an input beside its transposition": model_of(
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("Add", ["x", "t"], ["y"]),
        shape=(1, 5, 5),
    ),
    "an input that two convolutions read, one of them turned": flattened(
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("Conv", ["t", "w"], ["c"]),
        node("Conv", ["x", "v"], ["d"]), node("Concat", ["c", "d"], ["a"], axis=-2),
        shape=(1, 5, 5), features=35, w=weights(4, 5, 1), v=weights(3, 5, 1),
    ),
    "groups of shuffled channels normalized": flattened(
        node("Conv", ["x", "w"], ["c"]), *SHUFFLE,
        node("GroupNormalization", ["s", "gain", "bias"], ["a"], num_groups=1),
        shape=LINE, features=24, opset=21, w=weights(8, 8, 1), gain=weights(8), bias=weights(8),
        **SIDES,
    ),
    "a curve of what a norm took a number along for": flattened(
        node("GroupNormalization", ["x", "gain", "bias"], ["n"], num_groups=2),
        node("Mul", ["n", "half"], ["h"]), node("Sin", ["h"], ["s"]),
        node("Clip", ["h", "low", "high"], ["c"]), node("Mul", ["s", "c"], ["a"]),
        shape=LINE, features=24, opset=21, gain=weights(8), bias=weights(8),
        half=np.float32(0.5), low=np.float32(-0.3), high=np.float32(0.4),
    ),
    "parts of unequal sizes, before opset 13": flattened(
        node("Split", ["x"], ["b", "c", "a"], axis=1, split=[1, 2, 5]),
        shape=LINE, features=15, opset=11,
    ),
    "parts of equal sizes but for the last": flattened(
        node("Split", ["x"], ["b", "c", "a"], axis=-2, num_outputs=3), shape=LINE, features=6
    ),
    "repeated along named axes": flattened(
        node("Resize", ["x", "", "", "to"], ["a"], axes=[-1, 2], **NEAREST),
        shape=PICTURE, features=2 * 6 * 12, to=np.array([12, 6]),
    ),
    "repeated, before opset 11": flattened(
        node("Resize", ["x", "by"], ["a"], mode="nearest"),
        shape=PICTURE, features=2 * 3 * 12, opset=10, by=np.float32([1, 1, 1, 3]),
    ),
}  # fmt: skip


def off(model):
    """How far what is read lies from onnxruntime."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    given = np.random.default_rng(3).uniform(-1, 1, (9, *shape[1:])).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = np.concatenate([session.run(None, {"x": row[None]})[0] for row in given])
    graph = from_onnx(model)
    found = evaluate(graph, in_memory(given, graph))[-1]
    wanted = to_channels_last(wanted)
    return np.abs(found.reshape(wanted.shape) - wanted).max()


@pytest.mark.parametrize("name", READ)
def test_what_is_read_computes_what_onnxruntime_computes(name):
    assert off(READ[name]) < 2e-5


def test_random_orders_are_read_as_they_are_or_refused_in_one_line():
    found, refusals = {}, []
    for seed in range(400):
        try:
            found[seed] = off(random_orders(seed))
        except ExportError as refusal:
            refusals.append(str(refusal))
    assert {seed: distance for seed, distance in found.items() if not distance < 2e-4} == {}
    assert len(found) > 250
    assert not [words for words in refusals if "\n" in words]


def test_integers_of_random_orders_are_the_same_in_c_and_in_the_interpreter():
    programs = {}
    for seed in range(60):
        with contextlib.suppress(ExportError):
            programs[seed] = compile_model(random_orders(seed), input_range=(-1, 1))
    assert len(programs) > 30
    compared = 0
    for program in programs.values():
        given = every_byte(program, 4)
        with contextlib.suppress(ExportError):  # C has operators that it has not
            answers = interpret(to_int8_tflite(program), given)
            compared += 1
            assert (answers.reshape(4, -1) == run(program, given).reshape(4, -1)).all()
    assert compared > 15
    assert in_c(programs, share=True) == {}


REFUSED = {
    "scales whose sides are whole and whose cells are not": (
        model_of(node("Resize", ["x", "", "by"], ["y"], **NEAREST),
                 shape=LINE, by=np.float32([1, 1, 2.3])), "only by whole factors"),
    "another batch": (
        model_of(node("Resize", ["x", "", "by"], ["y"], **NEAREST),
                 shape=LINE, by=np.float32([2, 1, 2])), "only by whole factors"),
    "sizes of which one is not kept": (
        model_of(node("Resize", ["x", "", "", "to"], ["y"], axes=[2, 3],
                      keep_aspect_ratio_policy="not_larger", **NEAREST),
                 shape=PICTURE, to=np.array([6, 12])), "keep_aspect_ratio_policy=not_larger"),
    "a constant of more axes": (
        model_of(node("Mul", ["x", "k"], ["a"]), node("ReduceMean", ["a"], ["y"], keepdims=0),
                 shape=LINE, k=np.full((1, 1, 1, 1), 0.5, np.float32)), "to 3 axes"),
    "a constant of more axes in a curve": (
        model_of(node("Abs", ["x"], ["a"]), node("Add", ["a", "k"], ["y"]),
                 shape=LINE, k=np.full((1, 1, 1, 1), 0.5, np.float32)), "to 3 axes"),
    "slopes of more values than there are": (
        model_of(node("PRelu", ["x", "k"], ["y"]), shape=(1, 4),
                 k=np.full((3, 4), 0.5, np.float32)), r"slopes of shape \(3, 4\)"),
    "axes that are not named": (
        model_of(node("Squeeze", ["x"], ["y"]), shape=(1, 4, 1)), "name the axes"),
    "parts that are more than the whole": (
        model_of(node("Split", ["x", "k"], ["y", "z"], axis=1), shape=LINE, k=np.array([4, 5])),
        "of 8 values into 2 parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_another_function_is_refused_by_its_operator(name):
    model, words = REFUSED[name]
    with pytest.raises(ExportError, match=f"operator = .*{words}") as refusal:
        from_onnx(model)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("size", [1e-5, 2.3e-5, 1.7e-4, 3e-3])
def test_elu_of_values_that_float32_can_hardly_tell_apart_is_the_interpreters(size):
    """No scale makes one table of exp(x) − 1 in float32 and float64: the search never ended."""
    elu = Curve(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), ELU)
    program = quantize(Graph((elu,), ((256,), (256,))), [(-size, size), (-size, size)])
    given = every_byte(program, 3)
    assert (interpret(to_int8_tflite(program), given) == run(program, given)).all()


def seen(*sides):
    """A window of a sensor of six axes as a picture of one channel."""
    return compile_model(
        model_of(
            node("Unsqueeze", ["x", "axis"], ["u"]), node("Conv", ["u", "w"], ["y"]),
            shape=(1, *sides), axis=np.array([1]), w=weights(1, 1, 3, 3),
        ),
        input_range=(-1, 1),
    )  # fmt: skip


def test_a_sensor_is_read_only_by_a_model_whose_input_ends_with_its_axes():
    rows, columns = seen(119, 6), seen(6, 119)
    assert (rows.input.shape, columns.input.shape) == ((119, 6, 1), (6, 119, 1))
    assert [feels_motion(program) for program in (rows, columns)] == [True, False]
    stream = Stream(channels=6, every=12)
    assert "model_stream.h" in stream_to_c(rows, stream)
    with pytest.raises(ValueError, match=r"lies as 6 x 119 x 1: must end with the 6 values"):
        stream_to_c(columns, stream)


def test_c_says_when_inputs_lie_as_they_are_given():
    words = "Inputs lie as the float model takes them, last axis fastest."
    plain = compile_model(READ["parts of unequal sizes, before opset 13"], input_range=(-1, 1))
    assert [words in to_c(each)["model.h"] for each in (seen(6, 119), plain)] == [True, False]
