"""ONNX models written by hand, node by node, from "x" to "y"."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
RNG = np.random.default_rng(5)


def weights(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def model_of(*nodes, shape, opset=20, **constants):
    graph = helper.make_graph(
        list(nodes), "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def flattened(*nodes, shape, features, **constants):
    """The nodes up to "a", a Flatten and a linear layer that tells every cell from every other."""
    return model_of(
        *nodes, node("Flatten", ["a"], ["f"]), node("MatMul", ["f", "last"], ["y"]),
        shape=shape, last=weights(features, 3), **constants,
    )  # fmt: skip
