"""Random graphs with branches, of every layer and kind, and ranges that no training would give.

Inputs are pictures, lines (pictures one cell high), columns and vectors. Layers read any tensor
that is there, mostly one of the last three, and all that nobody reads meets in the end.
"""

import numpy as np

from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Activation, Convolution, Graph, Linear, Padding, Pooling
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.affine import Affine
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.concat import Concat
from dpsgd_torch.export.kinds.group_norm import GroupNorm, Groups
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import LeakyRelu
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.mul import Mul, product_shape
from dpsgd_torch.export.program import Program, Window
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import ranges

OF_ANY = ("clip", "function", "affine", "sum", "mul", "concat", "linear")
OF_PICTURES = ("conv", "conv", "depthwise", "depthwise", "max", "average", "pad", "mean", "gate")
OF_VECTORS = ("linear", "softmax", "scale")
SHRINKING = ("conv", "max", "average", "mean", "linear", "function")  # of pictures
CLAMPS = ((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-np.inf, 0.3), (0.1, 0.2), (0.0, np.inf))
EPSILONS = (1e-5, 1e-5, 1e-3, 1e-12, 0.0)
MOST_INPUTS = 10  # of a concatenation
MOST_VALUES = 600  # of a tensor that a layer may still widen
MOST_WEIGHTS = 4000  # of a layer
MOST_DIAGONAL = 64  # features of a vector that a constant scales by itself
MOST_FEATURES = 511  # of a softmax
NO_PADS = ((0, 0), (0, 0))


class _Builder:
    def __init__(self, seed: int) -> None:
        self.rng, self.norms = np.random.default_rng(seed), seed % 4 == 0
        self.shapes = [self.first_shape()]
        self.layers, self.inputs = [], []

    def whole(self, least, most):
        return int(self.rng.integers(least, most + 1))

    def chance(self, of):
        return self.rng.random() < of

    def first_shape(self):
        kind = self.rng.random()
        if kind < 0.2:
            return 1, self.whole(5, 60), self.whole(1, 8)
        if kind < 0.25:
            return self.whole(5, 40), 1, self.whole(1, 6)
        if kind < 0.35:
            return (self.whole(1, 60),)
        if kind < 0.38:
            return (self.whole(516, 700),)  # so wide that a row's sums are cut
        if kind < 0.5:
            return self.whole(1, 4), self.whole(1, 4), 4 * self.whole(1, 8)
        return self.whole(1, 8), self.whole(1, 8), self.whole(1, 6)

    def add(self, layer, shape, *read):
        self.layers.append(layer)
        self.inputs.append(tuple(read))
        self.shapes.append(tuple(int(side) for side in shape))
        return len(self.layers)

    def size(self, tensor):
        return int(np.prod(self.shapes[tensor]))

    def step(self):
        """One of the last few tensors, mostly, so that branches meet again, and a kind for it."""
        count = len(self.shapes)
        source = self.whole(max(0, count - 3) if self.chance(0.8) else 0, count - 1)
        wide = self.size(source) > MOST_VALUES
        if len(self.shapes[source]) == 1:
            kinds = ("linear",) if wide else OF_ANY + OF_VECTORS
        else:
            kinds = SHRINKING if wide else OF_ANY + OF_PICTURES
        if self.norms and not wide:
            kinds += ("norm",) * 3
        kind = str(self.rng.choice(kinds))
        getattr(self, kind)(source)

    def weights(self, outputs, *rest):
        made = self.rng.normal(size=(outputs, *rest))
        kind = self.rng.random()
        if kind < 0.1:
            made = np.sign(made)  # all as large as they can be
        elif kind < 0.15:
            made[:] = 0
        elif kind < 0.3:
            made *= 10.0 ** self.rng.uniform(-4, 1, (outputs, *[1] * len(rest)))
        return made.astype(np.float32)

    def bias(self, outputs):
        factor = self.rng.choice([0.0, 0.1, 1.0, 100.0])
        return (factor * self.rng.normal(size=outputs)).astype(np.float32)

    def linear(self, source, outputs=None):
        size = self.size(source)
        outputs = outputs or self.whole(1, max(1, min(12, MOST_WEIGHTS // size)))
        layer = Linear(self.weights(outputs, size), self.bias(outputs))
        return self.add(layer, (outputs,), source)

    def window(self, source, most=4, kind="conv"):
        """Kernel, stride and padding; only convolutions may see windows outside the picture."""
        shape = self.shapes[source][:2]
        kernel = tuple(self.whole(1, min(side, most)) for side in shape)
        stride = tuple(int(self.rng.choice([1, 1, 2, 3])) for _ in shape)
        padding = NO_PADS
        if self.chance(0.5):
            more = 1 if kind == "conv" and self.chance(0.2) else -1
            padding = tuple((self.whole(0, k + more), self.whole(0, k + more)) for k in kernel)
            if kind == "average" and self.chance(0.7):  # as TensorFlow Lite can say it
                padding = tuple(map(_same, shape, kernel, stride))
        return Window(kernel, stride, padding)

    def weighted(self, source, each, groups, window):
        height, width, channels = self.shapes[source]
        cells = window.kernel[0] * window.kernel[1] * channels // groups
        outputs = groups * max(1, min(each, MOST_WEIGHTS // (groups * cells)))
        weights = self.weights(outputs, *window.kernel, channels // groups)
        layer = Convolution(weights, self.bias(outputs), window, groups)
        return self.add(layer, (*_sides((height, width), window), outputs), source)

    def conv(self, source):
        channels = self.shapes[source][2]
        groups = 1
        if self.chance(0.15):
            groups = int(self.rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        return self.weighted(source, self.whole(1, 8), groups, self.window(source))

    def depthwise(self, source):
        each = int(self.rng.choice([1, 1, 2, 3]))
        return self.weighted(source, each, self.shapes[source][2], self.window(source))

    def max(self, source):
        return self.pool("max", source)

    def average(self, source):
        return self.pool("average", source)

    def pool(self, kind, source):
        *sides, channels = self.shapes[source]
        window = self.window(source, kind=kind)
        if self.chance(0.15):
            window = Window(tuple(sides))
        return self.add(Pooling(kind, window), (*_sides(sides, window), channels), source)

    def pad(self, source):
        height, width, channels = self.shapes[source]
        (a, b), (c, d) = padding = tuple((self.whole(0, 2), self.whole(0, 2)) for _ in range(2))
        return self.add(Padding(padding), (height + a + b, width + c + d, channels), source)

    def clip(self, source):
        return self.same(Clip(*CLAMPS[self.whole(0, len(CLAMPS) - 1)]), source)

    def function(self, source):
        slope = float(self.rng.choice([0, 0.01, 0.3, 2.0]))
        plain = (Activation(name) for name in ("relu", "relu", "tanh", "logistic"))
        functions = (HardSwish(), LeakyRelu(slope), *plain)
        return self.same(functions[self.whole(0, len(functions) - 1)], source)

    def softmax(self, source):
        if self.size(source) > MOST_FEATURES:
            return self.linear(source)
        return self.same(Activation("softmax"), source)

    def affine(self, source):
        shape = self.shapes[source]
        if len(shape) == 1 and shape[0] > MOST_DIAGONAL:
            return self.linear(source)
        factor, offset = self.rng.normal(size=(2, shape[-1]))
        return self.same(Affine(factor, offset), source)

    def same(self, layer, *read):
        return self.add(layer, self.shapes[read[0]], *read)

    def norm(self, source):
        """Over groups of channels, each cell's channels, or all values."""
        channels, size = self.shapes[source][-1], self.size(source)
        cells, kind = size // channels, self.whole(0, 3)
        if kind == 0:
            groups = Groups(1, 1, 1, size)
        elif kind == 1:
            groups = Groups(cells, 1, 1, channels)
        else:
            count = int(self.rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
            groups = Groups(1, cells, count, channels // count)
        width = groups.groups * groups.depth
        gain, bias = np.ones(width), np.zeros(width)
        if self.chance(0.7):
            gain, bias = self.rng.normal(size=(2, width)) * 10.0 ** self.rng.uniform(-1, 1)
        layer = GroupNorm(groups, gain.astype(np.float32), bias.astype(np.float32),
                          float(self.rng.choice(EPSILONS)))  # fmt: skip
        return self.same(layer, source)

    def mean(self, source):
        axes = ((0,), (1,), (0, 1))[self.whole(0, 2)]
        shape = self.shapes[source]
        if axes == (0, 1) and self.chance(0.3):
            return self.add(Mean(axes, False), shape[2:], source)
        made = tuple(1 if axis in axes else side for axis, side in enumerate(shape))
        return self.add(Mean(axes, True), made, source)

    def gate(self, source):
        """A product with one number a channel or a cell, which comes of the picture itself."""
        channels, kind = self.shapes[source][2], self.whole(0, 3)
        if kind == 0:
            gate = self.add(Mean((0, 1), True), (1, 1, channels), source)
        elif kind == 1 and channels * self.size(source) <= MOST_WEIGHTS:
            gate = self.linear(source, channels)
        elif kind == 2:
            gate = self.weighted(source, 1, 1, Window((1, 1)))
        else:
            gate = self.linear(source, 1)
        return self.product(source, gate)

    def scale(self, source):
        """By one number for all features."""
        return self.product(source, self.linear(source, 1))

    def product(self, source, gate):
        if self.chance(0.5):
            gate = self.function(gate)
        assert product_shape(self.shapes[source], self.shapes[gate]) == self.shapes[source]
        read = (source, gate) if self.chance(0.5) else (gate, source)
        return self.add(Mul(), self.shapes[source], *read)

    def sum(self, source):
        shape = self.shapes[source]
        if shape[:-1] == (1, 1) and shape[2] ** 2 <= MOST_WEIGHTS and self.chance(0.5):
            read = [source, self.linear(source, shape[2])]  # a vector beside a picture of one cell
            return self.add(Add(), shape, *(read if self.chance(0.5) else read[::-1]))
        return self.same(Add(), source, self.like(source, shape))

    def mul(self, source):
        return self.same(Mul(), source, self.like(source, self.shapes[source]))

    def like(self, source, start):
        """Another tensor whose shape starts so, made for it if there is none."""
        found = [
            i
            for i, shape in enumerate(self.shapes)
            if len(shape) == len(self.shapes[source]) and shape[: len(start)] == start
        ]
        channels = self.shapes[source][-1]
        if len(found) == 1 and channels**2 <= MOST_WEIGHTS and self.chance(0.8):
            if len(self.shapes[source]) == 3:
                return self.weighted(source, channels, 1, Window((1, 1)))
            return self.linear(source, channels)
        return int(self.rng.choice(found))

    def concat(self, source):
        start = self.shapes[source][:-1]
        parts = [source, self.like(source, start)]
        while self.chance(0.2):
            parts.append(int(self.rng.choice(parts)))
        if self.chance(0.15):  # flattened
            parts.append(self.whole(0, len(self.shapes) - 1))
        return self.join(parts[:MOST_INPUTS])

    def join(self, parts):
        shapes = [self.shapes[part] for part in parts]
        if len({shape[:-1] for shape in shapes}) > 1:
            return self.add(Concat(), (sum(map(self.size, parts)),), *parts)
        return self.add(Concat(), (*shapes[0][:-1], sum(shape[-1] for shape in shapes)), *parts)

    def finish(self):
        while len(loose := self.loose()) > 1:
            self.join(loose[-MOST_INPUTS:])
        (end,) = loose
        if self.chance(0.7) or end == 0:
            end = self.linear(end)
        if len(self.shapes[end]) == 1 and self.chance(0.3):
            self.softmax(end)
        return Graph(tuple(self.layers), tuple(self.shapes), tuple(self.inputs))

    def loose(self):
        read = {source for sources in self.inputs for source in sources}
        return [i for i in range(len(self.shapes)) if i not in read]


def _sides(shape, window):
    return [
        (side + sum(pads) - kernel) // stride + 1
        for side, kernel, stride, pads in zip(
            shape, window.kernel, window.stride, window.padding, strict=True
        )
    ]


def _same(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def random_graph(seed: int, steps: int = 9) -> Graph:
    """Up to so many steps, then all that nobody reads side by side, and mostly a linear layer."""
    build = _Builder(seed)
    for _ in range(build.whole(1, steps)):
        build.step()
    return build.finish()


def random_graph_program(seed: int) -> Program:
    """Of a random graph; the ranges of half of them are drawn without a look at its values."""
    graph = fold_affine(random_graph(seed))
    rng = np.random.default_rng([seed, 1])
    if rng.random() < 0.5:
        seen = rng.uniform(-1, 1, (16, *graph.shapes[0])).astype(np.float32)
        return quantize(graph, ranges(graph, (-1.0, 1.0), seen if rng.random() < 0.5 else None))
    spread = float(rng.choice([0.0, 1.0, 3.0]))
    sizes = 10 ** rng.uniform(-spread, spread, len(graph.shapes))
    sides = rng.choice([[-1, 1], [0, 1], [-1, 0], [-1, 0.1], [-0.01, 1]], len(graph.shapes))
    return quantize(graph, [(float(low), float(high)) for low, high in sides * sizes[:, None]])
