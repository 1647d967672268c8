"""Small random networks of every operator that the compiler takes, as ONNX and seeded."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCALES = (1.0, 1.0, 1.0, 1e-3, 30.0, 0.0)  # of a layer's weights; 0 is a dead layer


@dataclass(frozen=True)
class Network:
    """A model, the range its inputs are declared to lie in, and inputs, in ONNX's layout."""

    model: onnx.ModelProto
    input_range: tuple[float, float]
    inputs: np.ndarray


class _Builder:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.value = [], [], "input"

    def constant(self, values):
        name = f"c{len(self.constants)}"
        values = np.asarray(values)
        values = values if values.dtype == np.int64 else values.astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind, *constants, **attributes):
        output = f"v{len(self.nodes)}"
        inputs = [self.value, *map(self.constant, constants)]
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.value = output

    def weights(self, shape, fan_in):
        scale = self.rng.choice(SCALES) / np.sqrt(fan_in)
        weights = scale * self.rng.normal(size=shape)
        if self.rng.random() < 0.2:  # channels of very different size
            weights *= 10.0 ** self.rng.uniform(-4, 1, size=(shape[0], *[1] * (len(shape) - 1)))
        return weights

    def bias(self, size):
        return self.rng.choice([0.0, 0.1, 5.0]) * self.rng.normal(size=size)

    def activation(self):
        kind = self.rng.choice(["Relu", "Relu", "Relu", "Tanh", "Sigmoid", "", "Identity"])
        if kind:
            self.node(kind)
        if self.rng.random() < 0.1:  # one that nothing can take along
            self.node("Relu")

    def conv(self, shape):
        channels, height, width = shape
        rng = self.rng
        kernel = [int(rng.integers(1, min(4, size) + 1)) for size in (height, width)]
        strides = [int(rng.integers(1, 3)) for _ in range(2)]
        pads = [int(rng.integers(0, k)) if rng.random() < 0.5 else 0 for k in kernel * 2]
        groups = int(rng.choice([1, 1, channels, *[g for g in (2, 3) if channels % g == 0]]))
        out = groups * int(rng.integers(1, 5))
        fan_in = channels // groups * kernel[0] * kernel[1]
        weights = self.weights((out, channels // groups, *kernel), fan_in)
        constants = [weights] if rng.random() < 0.1 else [weights, self.bias(out)]
        self.node("Conv", *constants, kernel_shape=kernel, strides=strides, pads=pads, group=groups)
        return out, *_moved(shape, kernel, strides, pads)

    def pool(self, shape):
        rng = self.rng
        kind = rng.choice(["MaxPool", "AveragePool"])
        kernel = [int(rng.integers(1, min(3, size) + 1)) for size in shape[1:]]
        strides = [int(rng.integers(1, 3)) for _ in range(2)]
        pads, more = [0, 0, 0, 0], {}
        if rng.random() < 0.3:
            pads = [int(rng.integers(0, (k + 1) // 2 + (k > 1))) for k in kernel * 2]
            pads = [min(pad, k - 1) for pad, k in zip(pads, kernel * 2, strict=True)]
            if kind == "AveragePool":
                more["count_include_pad"] = 1
        self.node(kind, kernel_shape=kernel, strides=strides, pads=pads, **more)
        return shape[0], *_moved(shape, kernel, strides, pads)

    def linear(self, size):
        out = int(self.rng.integers(1, 12))
        weights, bias = self.weights((out, size), size), self.bias(out)
        if self.rng.random() < 0.3:
            self.node("MatMul", weights.T)
            self.node("Add", bias)
        else:
            self.node("Gemm", weights, bias, transB=1)
        return out


def random_network(seed, count=24):
    """A network, and ``count`` inputs that use its range up."""
    build = _Builder(seed)
    rng = build.rng
    low, high = [(0.0, 1.0), (-1.0, 1.0), (-4.0, 7.0), (0.0, 255.0)][rng.integers(4)]
    if rng.random() < 0.6:
        shape = (int(rng.integers(1, 5)), *(int(n) for n in rng.integers(3, 9, size=2)))
        first = shape
        for _ in range(rng.integers(1, 4)):
            shape = build.conv(shape) if rng.random() < 0.7 else build.pool(shape)
            build.activation()
        if rng.random() < 0.5:
            build.node("Flatten")
        else:
            build.node("Reshape", np.array([1, -1], np.int64))
        size = int(np.prod(shape))
    else:
        size = int(rng.integers(1, 40))
        first = (size,)
    for _ in range(rng.integers(1, 4)):
        size = build.linear(size)
        build.activation()
    if size > 1 and rng.random() < 0.4:
        build.node("Softmax", axis=-1)
    graph = helper.make_graph(
        build.nodes,
        f"network_{seed}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *first])],
        [helper.make_tensor_value_info(build.value, TensorProto.FLOAT, [1, size])],
        build.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    inputs = rng.uniform(low, high, size=(count, *first)).astype(np.float32)
    inputs[0], inputs[1] = low, high
    return Network(model, (low, high), inputs)


def _moved(shape, kernel, strides, pads):
    return [
        (size + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1
        for i, size in enumerate(shape[1:])
    ]
