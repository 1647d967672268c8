"""What exporters write in other words: lines, shapes moved about, constants left as operators."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from written_onnx import flattened, model_of, node, weights

from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import evaluate
from dpsgd_torch.export.host import run_on_host
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has

IMAGE, LINE = (1, 2, 5, 6), (1, 3, 12)
READ = {
    "a convolution over a line": flattened(
        node("Conv", ["x", "w", "b"], ["a"], strides=[2], pads=[1, 2]),
        shape=LINE, features=4 * 7, w=weights(4, 3, 3), b=weights(4),
    ),
    "pools over a line, cells outside counted": flattened(
        node("MaxPool", ["x"], ["m"], kernel_shape=[3], strides=[1]),
        node("AveragePool", ["m"], ["a"], kernel_shape=[2], strides=[2], pads=[1, 1],
             count_include_pad=1),
        shape=LINE, features=3 * 6,
    ),
    "depthwise over a line": flattened(
        node("Conv", ["x", "w"], ["a"], group=3), shape=LINE, features=6 * 10, w=weights(6, 1, 3)
    ),
    "SAME_UPPER": flattened(
        node("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]),
        shape=IMAGE, features=4 * 9, w=weights(4, 2, 2, 3),
    ),
    "SAME_LOWER": flattened(
        node("Conv", ["x", "w"], ["a"], auto_pad="SAME_LOWER", strides=[2, 2]),
        shape=IMAGE, features=4 * 9, w=weights(4, 2, 2, 3),
    ),
    "zeros around an image, which are more than its kernel": flattened(
        node("Pad", ["x", "pads"], ["p"]), node("Conv", ["p", "w"], ["c"], pads=[0, 1, 2, 3]),
        node("Pad", ["c", "more", "", "axes"], ["a"]),
        shape=IMAGE, features=4 * 12 * 10, w=weights(4, 2, 2, 2),
        pads=np.array([0, 0, 1, 0, 0, 0, 2, 1]), more=np.array([1, 2]), axes=np.array([-2]),
    ),
    "zeros around a line": flattened(
        node("Pad", ["x", "pads", "zero"], ["a"], mode="constant"),
        shape=LINE, features=3 * 15, pads=np.array([0, 0, 2, 0, 0, 1]), zero=np.float32(0),
    ),
    "means over the sides beside vectors": model_of(
        node("ReduceMean", ["x", "sides"], ["m"], keepdims=0), node("MatMul", ["m", "w"], ["v"]),
        node("Add", ["v", "m"], ["s"]), node("Mul", ["m", "s"], ["t"]),
        node("MatMul", ["t", "one"], ["n"]), node("Mul", ["n", "m"], ["u"]),
        node("MatMul", ["u", "w"], ["y"]),
        shape=IMAGE, sides=np.array([2, 3]), w=weights(2, 2), one=weights(2, 1),
    ),
    "dilations of a kernel of one cell": flattened(
        node("Conv", ["x", "w"], ["a"], dilations=[2, 2]),
        shape=IMAGE, features=4 * 30, w=weights(4, 2, 1, 1),
    ),
    "Gemm without C, with alpha": model_of(
        node("Gemm", ["x", "w"], ["y"], alpha=0.5), shape=(1, 4), w=weights(4, 3)
    ),
    "Gemm with beta and one number as C": model_of(
        node("Gemm", ["x", "w", "c"], ["y"], beta=3.0, transB=1),
        shape=(1, 4), w=weights(3, 4), c=np.float32(0.5),
    ),
    "a bias of channels after a convolution": flattened(
        node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "b"], ["a"]),
        shape=IMAGE, features=4 * 20, w=weights(4, 2, 2, 2), b=weights(1, 4, 1, 1),
    ),
    "constants shared, folded and passed through": model_of(
        node("Identity", ["w"], ["same"]), node("Transpose", ["same"], ["turned"], perm=[1, 0]),
        node("Add", ["b", "b"], ["twice"]), node("Reshape", ["twice", "s"], ["bias"]),
        node("Gemm", ["x", "turned", "bias"], ["h"]), node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "same", "b2"], ["y"]),
        shape=(1, 4), w=weights(3, 4), b=weights(3), s=np.array([1, 3]), b2=weights(4),
    ),
    "a flatten by the shape it has": model_of(
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "front"], ["n1"]), node("Concat", ["n1", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["f"]), node("MatMul", ["f", "w"], ["y"]),
        shape=IMAGE, w=weights(60, 3), zero=np.array(0), front=np.array([0]), rest=np.array([-1]),
    ),
    "an order turned twice": flattened(
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), node("Relu", ["t"], ["r"]),
        node("Transpose", ["r"], ["a"], perm=[0, 3, 2, 1]), shape=IMAGE, features=60,
    ),
    "an order that a linear layer takes along": flattened(
        node("Relu", ["x"], ["r"]), node("Transpose", ["r"], ["a"], perm=[0, 3, 1, 2]),
        shape=IMAGE, features=60,
    ),
    "axes of one cell put in and taken out": flattened(
        node("Unsqueeze", ["x", "two"], ["u"]), node("Conv", ["u", "w"], ["c"], pads=[0, 1, 0, 1]),
        node("Squeeze", ["c", "two"], ["a"]),
        shape=LINE, features=4 * 12, w=weights(4, 3, 1, 3), two=np.array([2]),
    ),
    "a line made into a picture": flattened(
        node("Reshape", ["x", "s"], ["u"]), node("Relu", ["u"], ["a"]),
        shape=LINE, features=36, s=np.array([0, 3, 1, -1]),
    ),
    "a branch whose values nobody needs": model_of(
        node("MatMul", ["x", "w"], ["aside"]), node("MatMul", ["x", "w"], ["y"]),
        shape=(1, 4), w=weights(4, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_other_words_compute_what_onnxruntime_computes(name):
    model = READ[name]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    inputs = weights(6, *shape[1:])
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in inputs])
    graph = from_onnx(model)
    found = evaluate(graph, to_channels_last(inputs))[-1]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    program = compile_model(model, input_range=(-3, 3), public_inputs=inputs)
    given = program.quantize(to_channels_last(inputs))
    norm = run(program, given)
    assert (interpret(to_int8_tflite(program), given) == norm).all()
    if has("gcc"):
        assert (run_on_host(to_c(program), given, "gcc").reshape(norm.shape) == norm).all()


def test_folding_leaves_a_plain_chain():
    assert from_onnx(READ["constants shared, folded and passed through"]).inputs == (
        (0,), (1,), (2,))  # fmt: skip


def test_a_layer_that_the_output_does_not_need_is_left_out():
    assert len(from_onnx(READ["a branch whose values nobody needs"]).layers) == 1


def test_the_public_gesture_networks_over_lines_are_carried():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(6, 8, 5, stride=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(8 * 29, 4), nn.Softmax(dim=-1),
    ).eval()  # fmt: skip
    inputs = torch.rand(20, 6, 119)
    program = compile_model(to_onnx(model, (6, 119), {}), input_range=(0, 1),
                            public_inputs=inputs.numpy())  # fmt: skip
    assert program.input.shape == (1, 119, 6)
    given = program.quantize(to_channels_last(inputs.numpy()))
    norm = run(program, given)
    assert (interpret(to_int8_tflite(program), given) == norm).all()
    real = (norm.astype(np.float64) + 128) / 256
    assert np.abs(real - model(inputs).detach().numpy()).max() < 0.03
