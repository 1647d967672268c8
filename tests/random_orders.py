"""Random ONNX models that move values about, and read them in several orders at once."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Drawn:
    """Values by name and shape of one example, from "x" on."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        side = int(self.rng.choice([4, 6]))
        self.shape = [(24,), (8, side), (4, side, 6)][self.rng.integers(3)]
        self.values, self.nodes, self.constants = [("x", self.shape)], [], []

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operator, given, shape, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, given, [name], name=name, **attributes))
        self.values.append((name, tuple(map(int, shape))))
        return name

    def step(self):
        name, shape = self.values[-1 - min(int(self.rng.exponential(1)), len(self.values) - 1)]
        steps = [self.curve, self.moved, self.counted, self.twice, self.twice, self.joined,
                 self.part, self.linear]  # fmt: skip
        if len(shape) > 1:
            steps += [self.convolved, self.convolved, self.mean, self.shuffled, self.pooled]
        steps[self.rng.integers(len(steps))](name, shape)

    def curve(self, name, shape):
        self.node(self.rng.choice(["Relu", "Sigmoid", "Abs", "Elu", "Neg"]), [name], shape)

    def moved(self, name, shape):
        order = self.rng.permutation(len(shape))
        perm = [0, *(int(axis) + 1 for axis in order)]
        return self.node("Transpose", [name], [shape[axis] for axis in order], perm=perm)

    def counted(self, name, shape):
        size = int(np.prod(shape))
        first = int(self.rng.choice([d for d in range(1, size + 1) if size % d == 0]))
        rest = [(size // first,), (1, size // first)][self.rng.integers(2)]
        sides = [first, *rest]
        return self.node("Reshape", [name, self.constant([1, *sides])], sides)

    def shuffled(self, name, shape):
        if shape[0] % 2:
            return name
        wide = [2, shape[0] // 2, int(np.prod(shape[1:]))]
        name = self.node("Reshape", [name, self.constant([1, *wide])], wide)
        turned = [wide[1], wide[0], wide[2]]
        name = self.node("Transpose", [name], turned, perm=[0, 2, 1, 3])
        return self.node("Reshape", [name, self.constant([1, *shape])], shape)

    def twice(self, name, shape):
        """With itself, or another of its shape, in another order."""
        same = [other for other, its in self.values if its == shape]
        other = same[self.rng.integers(len(same))]
        if len(shape) > 1:
            other = self.shuffled(other, shape)
        pair = [[name, other], [other, name]][self.rng.integers(2)]
        self.node(self.rng.choice(["Add", "Sub", "Mul"]), pair, shape)

    def joined(self, name, shape):
        axis = int(self.rng.integers(len(shape)))
        made = [side * (1 + (axis == at)) for at, side in enumerate(shape)]
        if np.prod(made) < 400:
            same = [other for other, its in self.values if its == shape]
            pair = [name, same[self.rng.integers(len(same))]]
            self.node("Concat", pair, made, axis=axis - len(shape))

    def part(self, name, shape):
        axis = int(self.rng.integers(len(shape)))
        start, step = int(self.rng.integers(0, shape[axis])), int(self.rng.integers(1, 3))
        made = [len(range(start, side, step)) if at == axis else side
                for at, side in enumerate(shape)]  # fmt: skip
        told = (start - shape[axis], np.iinfo(np.int64).max, axis - len(shape), step)
        self.node("Slice", [name, *(self.constant([number]) for number in told)], made)

    def weights(self, *shape):
        scale = np.sqrt(np.prod(shape[1:]))
        return self.constant((self.rng.normal(size=shape) / scale).astype(np.float32))

    def linear(self, name, shape):
        self.node("MatMul", [name, self.weights(shape[-1], 5)], [*shape[:-1], 5])

    def convolved(self, name, shape):
        depthwise = self.rng.random() < 0.3
        kernel = self.weights(shape[0] if depthwise else 6, 1 if depthwise else shape[0],
                              *[1] * (len(shape) - 1))  # fmt: skip
        made = [shape[0] if depthwise else 6, *shape[1:]]
        self.node("Conv", [name, kernel], made, group=shape[0] if depthwise else 1)

    def pooled(self, name, shape):
        if min(shape[1:]) > 1:
            made = [shape[0], *(side - 1 for side in shape[1:])]
            self.node("MaxPool", [name], made, kernel_shape=[2] * (len(shape) - 1))

    def mean(self, name, shape):
        axis = int(self.rng.integers(len(shape)))
        made = [1 if at == axis else side for at, side in enumerate(shape)]
        self.node("ReduceMean", [name, self.constant([axis - len(shape)])], made)


def random_orders(seed: int) -> onnx.ModelProto:
    drawn = Drawn(seed)
    while len(drawn.nodes) < 3 + seed % 8:
        drawn.step()
    name, shape = drawn.values[-1]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        drawn.nodes, "orders",
        [info("x", TensorProto.FLOAT, [1, *drawn.shape])],
        [info(name, TensorProto.FLOAT, [1, *shape])], drawn.constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
