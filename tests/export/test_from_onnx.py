"""ONNX is read as onnxruntime reads it, and what cannot be carried is refused by name."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from random_networks import random_network

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.from_onnx import from_onnx, to_channels_last
from dpsgd_torch.export.graph import Linear, evaluate


def by_onnxruntime(network):
    session = onnxruntime.InferenceSession(
        network.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(None, {"input": row[None]})[0] for row in network.inputs])


@pytest.mark.parametrize("seed", range(60))
def test_the_graph_computes_what_onnxruntime_computes(seed):
    network = random_network(seed)
    expected = by_onnxruntime(network)
    found = evaluate(from_onnx(network.model), to_channels_last(network.inputs))[-1]
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def model_of(*nodes, shape=(1, 2, 4, 4), out="y", **constants):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


KERNEL = np.ones((3, 2, 2, 2), np.float32)
node = helper.make_node

REFUSED = {
    "operator = ReduceMin: cannot be carried further; train with ReduceMean": model_of(
        node("ReduceMin", ["x"], ["y"])
    ),
    "dilations=[2, 2]": model_of(
        node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])
    ),
    "auto_pad=SAME is none": model_of(
        node("Conv", ["x", "w"], ["y"], auto_pad="SAME"), w=KERNEL
    ),
    "kernel of 1 and strides of 3: runtimes disagree": model_of(
        node("AveragePool", ["x"], ["y"], kernel_shape=[1, 1], strides=[3, 3],
             auto_pad="SAME_UPPER"), shape=(1, 2, 6, 6),
    ),
    "mode=reflect": model_of(
        node("Pad", ["x", "p"], ["y"], mode="reflect"), p=np.array([0, 0, 1, 1, 0, 0, 1, 1])
    ),
    "by [(1, 0), (0, 0), (0, 0)] of (2, 4, 4): only an image's sides": model_of(
        node("Pad", ["x", "p"], ["y"]), p=np.array([0, 1, 0, 0, 0, 0, 0, 0])
    ),
    "with 1 cannot be carried further; pad with zeros": model_of(
        node("Pad", ["x", "p", "one"], ["y"]), p=np.array([0, 0, 1, 0, 0, 0, 0, 0]),
        one=np.float32(1),
    ),
    "pads=[1, 1] of 4 axes; two numbers an axis": model_of(
        node("Pad", ["x", "p"], ["y"]), p=np.array([1, 1])
    ),
    "ceil_mode begins a last window outside": model_of(
        node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[2, 2], pads=[0, 0, 0, 0],
             ceil_mode=1)
    ),
    "of shapes (2, 3, 3) and (2, 4, 4)": model_of(
        node("Conv", ["x", "w"], ["a"]), node("Add", ["a", "x"], ["y"]), out="y",
        w=np.ones((2, 2, 2, 2), np.float32),
    ),
    "must stay the batch of one": model_of(node("Reshape", ["x", "s"], ["y"]), s=np.array([2, 16])),
    "over all features": model_of(node("Softmax", ["x"], ["y"], axis=1)),
    "larger than its input": model_of(
        node("Conv", ["x", "w"], ["y"]), w=np.ones((1, 2, 5, 5), np.float32)
    ),
    "only (1, features)": model_of(node("Relu", ["x"], ["y"]), shape=(1, 2, 4, 1, 1)),
    "of two computed tensors, as in attention": model_of(node("MatMul", ["x", "x"], ["y"])),
    "mode=wrap cannot be carried": model_of(
        node("Pad", ["x", "p"], ["y"], mode="wrap"), p=np.array([0, 0, 1, 0, 0, 0, 0, 0])
    ),
    "only by whole factors": model_of(
        node("Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"), s=np.float32([1, 1, 1.5, 1])
    ),
    "takes values that are no box": model_of(
        node("Relu", ["x"], ["r"]), node("Reshape", ["r", "s"], ["f"]),
        node("Slice", ["f", "a", "b", "b1"], ["y"]), a=np.array([3]), b=np.array([6]),
        b1=np.array([2]), s=np.array([1, 2, 8, 2, 1]),
    ),
    "only forwards": model_of(
        node("Slice", ["x", "a", "b", "c", "d"], ["y"]), a=np.array([-1]), b=np.array([-9]),
        c=np.array([2]), d=np.array([-1]),
    ),
    "of a function of one value": model_of(
        node("Tanh", ["x"], ["t"]), node("Greater", ["x", "t"], ["g"]),
        node("Transpose", ["g"], ["y"], perm=[0, 2, 1, 3]),
    ),
    "operator = Log: is no finite number everywhere": model_of(node("Log", ["x"], ["y"])),
    "divided by 1, 2, 4": model_of(node("Transpose", ["x"], ["y"], perm=[2, 3, 0, 1])),
    "takes 5 features and is given 4": model_of(
        node("MatMul", ["x", "w"], ["y"]), shape=(1, 4), w=np.ones((5, 2), np.float32)
    ),
    "has 4 outputs and a bias of 3": model_of(
        node("Gemm", ["x", "w", "b"], ["y"]), shape=(1, 4), w=np.ones((4, 4), np.float32),
        b=np.ones(3, np.float32),
    ),
    "do not fit an image of 2 channels": model_of(
        node("Conv", ["x", "w"], ["y"], group=2), w=KERNEL
    ),
    "windows with nothing in them": model_of(
        node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[2, 0, 0, 0])
    ),
    "pads must not be negative": model_of(
        node("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0]), w=KERNEL
    ),
    "constant w holds values that are not finite": model_of(
        node("Conv", ["x", "w"], ["y"]), w=KERNEL * np.float32(np.nan)
    ),
    "constant b holds values that are not finite": model_of(
        node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"]), shape=(1, 4),
        w=np.ones((4, 2), np.float32), b=np.float32([0, np.inf]),
    ),
    "transA=1": model_of(
        node("Gemm", ["x", "w"], ["y"], transA=1), shape=(1, 4), w=np.ones((4, 4), np.float32)
    ),
    "a constant of shape (4, 4) to": model_of(
        node("Conv", ["x", "w"], ["a"], pads=[0, 0, 1, 1]), node("Add", ["a", "c"], ["y"]),
        w=KERNEL, c=np.eye(4, dtype=np.float32),
    ),
    "(conv_7)": model_of(node("Conv", ["x", "w"], ["y"], name="conv_7", group=2), w=KERNEL),
    "draws numbers": model_of(
        node("RandomNormalLike", ["w"], ["r"]), node("Conv", ["x", "r"], ["y"]), w=KERNEL
    ),
    "more than 67,108,864 values": model_of(
        node("Expand", ["w", "s"], ["r"]), node("Conv", ["x", "r"], ["y"]),
        w=KERNEL, s=np.array([1000, 3, 2, 2000, 2000]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_carried_is_refused_by_name(words):
    with pytest.raises(ExportError) as refusal:
        compile_model(REFUSED[words], input_range=(0, 1))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_refused_operator_is_told_what_is_known():
    with pytest.raises(ExportError, match="known are Add, AveragePool, BatchNormalization, Cast"):
        from_onnx(model_of(node("ReduceMin", ["x"], ["y"])))


def test_a_shape_may_be_a_constant_of_any_kind_that_onnx_has():
    shape = node("Constant", [], ["s"], value_ints=[1, -1])
    model = model_of(shape, node("Reshape", ["x", "s"], ["f"]), node("Gemm", ["f", "w"], ["y"]),
                     w=np.ones((32, 1), np.float32))  # fmt: skip
    assert from_onnx(model).shapes[-1] == (1,)


def test_no_transpose_is_left_between_an_image_and_a_linear_layer():
    weights = np.arange(32, dtype=np.float32).reshape(1, 32)
    graph = from_onnx(
        model_of(
            node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"], ["y"], transB=1), w=weights
        )
    )
    (layer,) = graph.layers
    assert isinstance(layer, Linear)
    assert layer.weights[0, :4].tolist() == [0, 16, 1, 17]  # both channels of a cell, then the next
