"""Random graphs with branches, of every layer and kind, and ranges that no training would give.

Inputs are pictures, lines (pictures one cell high), columns and vectors. Layers read any tensor
that is there, mostly one of the last three, and all that nobody reads meets in the end. What has a
window is drawn in ``random_windows.py``, what moves values in ``random_moves.py``.
"""

import numpy as np
from random_draws import MOST_WEIGHTS
from random_moves import Moves
from random_windows import Windows

from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Activation, Graph
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.affine import Affine
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.concat import Concat
from dpsgd_torch.export.kinds.curve import ELU, Curve
from dpsgd_torch.export.kinds.group_norm import GroupNorm, Groups
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import LeakyRelu
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.mul import Mul, product_shape
from dpsgd_torch.export.program import Program, Window
from dpsgd_torch.export.quantize import quantize
from dpsgd_torch.export.ranges import ranges

OF_ANY = (
    "clip", "function", "curve", "affine", "sum", "mul", "concat", "linear", "view", "transpose",
    "crop",
)  # fmt: skip
OF_PICTURES = (
    "conv", "conv", "depthwise", "depthwise", "max", "average", "pad", "mean",
    "gate", "upsample", "over_channels",
)  # fmt: skip
OF_VECTORS = ("linear", "softmax", "scale")
SHRINKING = ("conv", "max", "average", "mean", "linear", "function", "crop")  # of pictures
CLAMPS = ((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-np.inf, 0.3), (0.1, 0.2), (0.0, np.inf))
EPSILONS = (1e-5, 1e-5, 1e-3, 1e-12, 0.0)
CURVES = {
    ELU: lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "Abs": np.abs,
    "Sin": np.sin,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Softsign": lambda x: x / (1 + np.abs(x)),
}
C_ALONE = [name for name in CURVES if name != ELU]
MOST_INPUTS = 10  # of a concatenation
MOST_VALUES = 600  # of a tensor that a layer may still widen
MOST_DIAGONAL = 64  # features of a vector that a constant scales by itself
MOST_FEATURES = 511  # of a softmax


class _Builder(Windows, Moves):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.c_alone = seed % 4 == 0
        self.shapes.append(self.first_shape())

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

    def step(self):
        """One of the last few tensors, mostly, so that branches meet again, and a kind for it."""
        count = len(self.shapes)
        source = self.whole(max(0, count - 3) if self.chance(0.8) else 0, count - 1)
        wide = self.size(source) > MOST_VALUES
        if len(self.shapes[source]) == 1:
            kinds = ("linear",) if wide else OF_ANY + OF_VECTORS
        else:
            kinds = SHRINKING if wide else OF_ANY + OF_PICTURES
        if self.c_alone and not wide:
            kinds += ("norm",) * 3
        kind = str(self.rng.choice(kinds))
        getattr(self, kind)(source)

    def clip(self, source):
        return self.same(Clip(*CLAMPS[self.whole(0, len(CLAMPS) - 1)]), source)

    def function(self, source):
        slope = float(self.rng.choice([0, 0.01, 0.3, 2.0]))
        plain = (Activation(name) for name in ("relu", "relu", "tanh", "logistic"))
        functions = (HardSwish(), LeakyRelu(slope), *plain)
        return self.same(functions[self.whole(0, len(functions) - 1)], source)

    def curve(self, source):
        name = str(self.rng.choice(C_ALONE)) if self.c_alone and self.chance(0.8) else ELU
        return self.same(Curve(CURVES[name], name), source)

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
