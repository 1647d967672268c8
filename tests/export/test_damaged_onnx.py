"""An ONNX file that is none is refused in one short line that names the operator."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.from_onnx import from_onnx

node = helper.make_node
KERNEL = np.ones((2, 1, 3, 3), np.float32)
MANY = np.arange(200, dtype=np.float32)


def model_of(*nodes, **constants):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph)


DAMAGED = {
    "no output": (model_of(node("Relu", ["x"], [])), "Relu"),
    "no input": (model_of(node("Relu", [], ["y"])), "Relu"),
    "no kernel": (model_of(node("MaxPool", ["x"], ["y"])), "MaxPool"),
    "a kernel of one number": (model_of(node("MaxPool", ["x"], ["y"], kernel_shape=3)), "MaxPool"),
    "a step of nothing": (
        model_of(node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 1])), "MaxPool"),
    "pads of one side": (model_of(node("Conv", ["x", "w"], ["y"], pads=[1]), w=KERNEL), "Conv"),
    "weights of no shape": (model_of(node("Conv", ["x", "w"], ["y"]), w=np.float32(1)), "Conv"),
    "weights from nowhere": (model_of(node("Conv", ["x", "v"], ["y"]), w=KERNEL), "Conv"),
    "no shape to reshape to": (model_of(node("Reshape", ["x"], ["y"])), "Reshape"),
    "a shape of many numbers": (model_of(node("Reshape", ["x", "s"], ["y"]), s=MANY), "Reshape"),
    "an empty constant": (model_of(node("Constant", [], ["c"])), "Constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_no_operator_has_is_refused_by_its_name(name):
    model, operator = DAMAGED[name]
    with pytest.raises(ExportError) as caught:
        from_onnx(model)
    message = str(caught.value)
    assert operator in message
    assert "\n" not in message
    assert len(message) < 300
