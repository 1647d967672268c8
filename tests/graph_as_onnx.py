"""Random graphs as ONNX models, channels first, in whichever of the words that exporters use."""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dpsgd_torch.export.graph import Activation, Convolution, Graph, Linear, Padding, Pooling
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.affine import Affine
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.concat import Concat
from dpsgd_torch.export.kinds.crop import Crop
from dpsgd_torch.export.kinds.curve import Curve
from dpsgd_torch.export.kinds.group_norm import GroupNorm
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import LeakyRelu
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.mul import Mul
from dpsgd_torch.export.kinds.transpose import Transpose
from dpsgd_torch.export.kinds.upsample import Upsample
from dpsgd_torch.export.kinds.view import View

OPSET = 21
NAMES = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}
REPEATS = (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"))
LEAST_EPSILON = 1e-3  # below, rounding of values that are all alike is what a norm makes large


class _Writer:
    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph, self.rng = graph, np.random.default_rng([seed, 2])
        self.nodes, self.constants, self.values = [], [], ["input"]
        self.sides = 1 if _is_line(graph) and self.chance(0.8) else 2
        self.column = (-1, *[1] * self.sides)

    def chance(self, of):
        return self.rng.random() < of

    def constant(self, values, kind=np.float32):
        """An initializer, or a node that makes it."""
        name = f"c{len(self.constants)}_{len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(values, kind), name)
        if self.chance(0.1):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.constants.append(tensor)
        return name

    def node(self, kind, *inputs, **attributes):
        """Inputs are names, arrays or None."""
        output = f"v{len(self.nodes)}"
        given = [
            "" if each is None else each if isinstance(each, str) else self.constant(each)
            for each in inputs
        ]
        self.nodes.append(helper.make_node(kind, given, [output], output, **attributes))
        if self.chance(0.05):
            return self.node("Identity", output)
        return output

    def reshaped(self, value, *shape):
        return self.node("Reshape", value, self.constant(shape, np.int64))

    def layer(self, index):
        layer, sources = self.graph.layers[index], self.graph.sources[index]
        given = [self.values[source] for source in sources]
        shapes = [self.graph.shapes[source] for source in sources]
        x, shape = given[0], shapes[0]
        match layer:
            case Linear():
                made = self.linear(layer, x, shape)
            case Convolution(weights, bias, window, groups):
                kernel = self.first(weights)
                told = [None] if not bias.any() and self.chance(0.5) else [bias]
                moves = {**self.moves(shape, window, "conv"), "group": groups}
                made = self.node("Conv", x, kernel, *told, **moves)
            case Pooling(kind, window):
                made = self.pool(kind, x, shape, window)
            case Padding(padding):
                before, after = np.transpose(padding)[:, -self.sides :].tolist()
                pads = self.constant([0, 0, *before, 0, 0, *after], np.int64)
                made = self.node("Pad", x, pads, *([] if self.chance(0.5) else [np.float32(0)]))
            case Activation("softmax"):
                made = self.node("Softmax", x, axis=-1)
            case Activation(kind):
                made = self.node(NAMES[kind], x)
            case Clip(low, high):
                made = self.clip(x, low, high)
            case HardSwish():
                made = self.node("HardSwish", x)
            case LeakyRelu(slope):
                made = self.node("LeakyRelu", x, alpha=slope)
            case Affine(factor, offset):
                made = self.affine(x, factor, offset, len(shape))
            case Mean(axes, keepdims):
                made = self.reduced("ReduceMean", x, axes, keepdims)
            case Curve(_, name):
                made = self.curve(name, x)
            case View(sides):
                made = self.laid(self.in_memory(x, shape), sides)
            case Transpose(sides, order, sides_after):
                wide = self.reshaped(self.in_memory(x, shape), 1, *sides)
                turned = self.node("Transpose", wide, perm=[0, *(axis + 1 for axis in order)])
                made = self.laid(turned, sides_after)
            case Crop():
                made = self.crop(layer, x)
            case Upsample():
                made = self.upsample(layer, x)
            case Add():
                made = self.both("Add", given, shapes)
            case Mul():
                made = self.both("Mul", given, shapes)
            case Concat():
                made = self.concat(given, shapes)
            case GroupNorm():
                made = self.norm(layer, x, shape)
            case _:
                raise TypeError(layer)
        self.values.append(made)

    def linear(self, layer, x, shape):
        weights = layer.weights
        if len(shape) == 3:
            flat = self.chance(0.5)
            x = self.node("Flatten", x) if flat else self.reshaped(x, 1, -1)
            weights = self.first(weights.reshape(-1, *shape)).reshape(len(weights), -1)
        kind = self.rng.random()
        if kind < 0.3:
            return self.node("Add", self.node("MatMul", x, weights.T), layer.bias)
        if kind < 0.5:
            return self.node("Gemm", x, weights.T / 2, layer.bias, alpha=2.0)
        return self.node("Gemm", x, weights, layer.bias, transB=1)

    def first(self, values):
        """(batch, height, width, channels) → as ONNX has it."""
        return np.moveaxis(values if self.sides == 2 else values[:, 0], -1, 1)

    def moves(self, shape, window, kind="pool"):
        kernel, stride, padding, apart, reach = (
            told[-self.sides :]
            for told in (window.kernel, window.stride, window.padding, window.dilation,
                         window.reach)
        )  # fmt: skip
        told = {"kernel_shape": kernel, "strides": stride}
        if max(apart) > 1 or self.chance(0.2):
            told["dilations"] = apart
        same = []
        for size, k, by in zip(shape[2 - self.sides : 2], reach, stride, strict=True):
            total = max((-(-size // by) - 1) * by + k - size, 0)
            same.append((total // 2, total - total // 2))
        said = kind == "conv" or all(k >= by for k, by in zip(kernel, stride, strict=True))
        said &= max(apart) == 1  # onnxruntime refuses auto_pad beside dilations
        if said and self.chance(0.5) and tuple(same) == padding:
            return {**told, "auto_pad": "SAME_UPPER"}
        if any(map(any, padding)) or self.chance(0.5):
            told["pads"] = [*(each[0] for each in padding), *(each[1] for each in padding)]
        return told

    def pool(self, kind, x, shape, window):
        name = "Max" if kind == "max" else "Average"
        whole = window.kernel == shape[:2] and not any(map(any, window.padding))
        if whole and kind == "max" and self.chance(0.4):
            return self.reduced("ReduceMax", x, (0, 1), True)
        if whole and self.chance(0.7):
            return self.node(f"Global{name}Pool", x)
        return self.node(f"{name}Pool", x, **self.moves(shape, window))

    def clip(self, x, low, high):
        ends = [None if math.isinf(end) else np.float32(end) for end in (low, high)]
        if (low, high) == (0.0, math.inf) and self.chance(0.5):
            return self.node("Max", np.float32(0), x)
        return self.node("Clip", x, *(ends if ends[1] is not None else ends[:1]))

    def affine(self, x, factor, offset, axes):
        if self.chance(0.4):
            mean, spread = self.rng.normal(size=len(factor)), self.rng.uniform(0.5, 2, len(factor))
            scale = factor * np.sqrt(spread + 1e-3)
            shift = offset + mean * factor
            return self.node("BatchNormalization", x, scale, shift, mean, spread, epsilon=1e-3)
        column = self.column if axes == 3 else (1, -1)
        x = self.node("Mul", *self.either(x, factor.reshape(column)))
        if self.chance(0.5):
            return self.node("Sub", x, -offset.reshape(column))
        return self.node("Add", *self.either(x, offset.reshape(column)))

    def either(self, first, second):
        return (first, second) if self.chance(0.5) else (second, first)

    def both(self, kind, given, shapes):
        """A vector beside a picture has one number a channel."""
        wide = max(map(len, shapes))
        return self.node(kind, *(
            self.reshaped(x, 1, shape[0], *[1] * self.sides) if len(shape) < wide else x
            for x, shape in zip(given, shapes, strict=True)
        ))  # fmt: skip

    def concat(self, given, shapes):
        """Flattened parts lie as in memory."""
        if len({shape[:-1] for shape in shapes}) > 1:
            given = [
                self.laid(self.in_memory(x, shape), (math.prod(shape),))
                for x, shape in zip(given, shapes, strict=True)
            ]
            shapes = [()]
        axis = -1 - self.sides if len(shapes[0]) == 3 and self.chance(0.5) else 1
        return self.node("Concat", *given, axis=axis)

    def last(self, x):
        return self.node("Transpose", x, perm=[0, *range(2, 2 + self.sides), 1])

    def first_again(self, x):
        return self.node("Transpose", x, perm=[0, 1 + self.sides, *range(1, 1 + self.sides)])

    def in_memory(self, x, shape):
        """As it lies in memory."""
        return self.last(x) if len(shape) == 3 else x

    def laid(self, x, shape):
        """What lies so in memory, of that shape."""
        x = self.reshaped(x, 1, *(shape if len(shape) == 1 else shape[2 - self.sides :]))
        return self.first_again(x) if len(shape) == 3 else x

    def reduced(self, kind, x, axes, keepdims):
        """Over sides, of the picture as it is or with its channels last."""
        axes = [axis for axis in axes if axis >= 2 - self.sides]
        turned = self.chance(0.3)
        first = (1 if turned else 2) - (2 - self.sides)
        told = self.constant([axis + first for axis in axes], np.int64)
        made = self.node(kind, self.last(x) if turned else x, told, keepdims=int(keepdims))
        return self.first_again(made) if turned and keepdims else made

    def curve(self, name, x):
        if name == "Softsign" and self.chance(0.5):
            below = self.node("Add", *self.either(np.float32(1), self.node("Abs", x)))
            return self.node("Div", x, below)
        return self.node(name, x)

    def crop(self, layer, x):
        """Channels are the last of the layer's axes, and the first of ONNX's."""
        parts = list(zip(layer.given, layer.starts, layer.sizes, layer.steps, strict=True))
        if len(parts) == 3:
            parts = [parts[2], *parts[2 - self.sides : 2]]
        told = [
            (start, start + (size - 1) * step + 1, axis, step)
            for axis, (side, start, size, step) in enumerate(parts, 1)
            if (start, size) != (0, side)
        ]
        if not told:
            return self.node("Identity", x)
        names = [self.constant(numbers, np.int64) for numbers in zip(*told, strict=True)]
        return self.node("Slice", x, *names)

    def upsample(self, layer, x):
        height, width, channels = layer.given
        way, nearest = REPEATS[int(self.chance(0.5))]
        told = {"coordinate_transformation_mode": way, "nearest_mode": nearest}
        by = (layer.down, layer.across)[-self.sides :]
        if self.chance(0.5):
            return self.node("Resize", x, None, np.array([1, 1, *by]), **told)
        sides = (height * layer.down, width * layer.across)[-self.sides :]
        return self.node(
            "Resize", x, None, None, self.constant([1, channels, *sides], np.int64), **told
        )

    def norm(self, layer, x, shape):
        groups, width = layer.groups, len(layer.gain)
        told = {"epsilon": max(layer.epsilon, LEAST_EPSILON)}
        size = math.prod(shape)
        if groups.groups == 1 and groups.depth == size:  # of all
            gain, bias = layer.gain, layer.bias
            if len(shape) == 3:
                gain, bias = (self.first(each.reshape(1, *shape))[0] for each in (gain, bias))
            return self.node("LayerNormalization", x, gain, bias, axis=1, **told)
        if groups.groups == 1 and groups.rows > 1:  # of each cell's channels
            made = self.node("LayerNormalization", self.last(x), layer.gain, layer.bias, **told)
            return self.first_again(made)
        if len(shape) == 3 and self.chance(0.5):
            told["num_groups"] = groups.groups
            return self.node("GroupNormalization", x, layer.gain, layer.bias, **told)
        told_shape = (1, width, *shape[2 - self.sides : 2]) if len(shape) == 3 else (1, width)
        ones, zeros = np.ones(groups.groups), np.zeros(groups.groups)
        apart = self.reshaped(x, 1, groups.groups, -1)
        made = self.node("InstanceNormalization", apart, ones, zeros, **told)
        column = self.column if len(shape) == 3 else (-1,)
        made = self.node("Mul", self.reshaped(made, *told_shape), layer.gain.reshape(column))
        return self.node("Add", made, layer.bias.reshape(column))

    def finish(self):
        first, last = (self.channels_first(self.graph.shapes[i]) for i in (0, -1))
        graph = helper.make_graph(
            self.nodes, "random",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, first)],
            [helper.make_tensor_value_info(self.values[-1], TensorProto.FLOAT, last)],
            self.constants,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model

    def channels_first(self, shape):
        return [1, shape[2], *shape[2 - self.sides : 2]] if len(shape) == 3 else [1, *shape]


def _is_line(graph):
    """Whether all of it can be said of (channels, length)."""
    windows = [layer.window for layer in graph.layers if isinstance(layer, Convolution | Pooling)]
    return all(shape[0] == 1 for shape in graph.shapes if len(shape) == 3) and not (
        any(any(window.padding[0]) for window in windows)
        or any(layer.axes == (0,) for layer in graph.layers if isinstance(layer, Mean))
    )


def as_onnx(graph: Graph, seed: int) -> onnx.ModelProto:
    """The same function, but for a norm's epsilon, which is ``LEAST_EPSILON`` at least."""
    write = _Writer(graph, seed)
    for index in range(len(graph.layers)):
        write.layer(index)
    return write.finish()
