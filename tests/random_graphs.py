"""Random graphs with branches, of every layer and kind, and ranges that no training would give."""

import numpy as np

from dpsgd_torch.export.fold_affine import fold_affine
from dpsgd_torch.export.graph import Activation, Convolution, Graph, Linear, Padding, Pooling
from dpsgd_torch.export.kinds.add import Add
from dpsgd_torch.export.kinds.affine import Affine
from dpsgd_torch.export.kinds.clip import Clip
from dpsgd_torch.export.kinds.concat import Concat
from dpsgd_torch.export.kinds.hard_swish import HardSwish
from dpsgd_torch.export.kinds.leaky_relu import LeakyRelu
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.mul import Mul
from dpsgd_torch.export.program import Program, Window
from dpsgd_torch.export.quantize import quantize

KINDS = (
    "conv", "depthwise", "max", "average", "pad", "clip", "function", "affine", "mean", "add",
    "mul", "gate", "concat",
)  # fmt: skip
CLAMPS = ((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-np.inf, 0.3), (0.1, 0.2), (0.0, np.inf))
MOST_INPUTS = 10  # of a concatenation


class _Builder:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        sides = self.rng.integers(1, 6, 3)
        self.shapes = [tuple(int(side) for side in sides)]
        self.layers, self.inputs = [], []

    def add(self, layer, shape, *read):
        self.layers.append(layer)
        self.inputs.append(tuple(read))
        self.shapes.append(tuple(int(side) for side in shape))
        return len(self.layers)

    def picture(self):
        """One of the last few, mostly, so that branches meet again."""
        found = [i for i, shape in enumerate(self.shapes) if len(shape) == 3]
        return int(self.rng.choice(found[-3:] if self.rng.random() < 0.8 else found))

    def weighted(self, source, outputs, kernel=(1, 1), groups=1, padding=((0, 0), (0, 0))):
        height, width, channels = self.shapes[source]
        weights = self.rng.normal(size=(outputs, *kernel, channels // groups))
        bias = self.rng.normal(size=outputs) * self.rng.choice([0, 1, 100])
        sides = [
            side + sum(pads) - k + 1
            for side, pads, k in zip((height, width), padding, kernel, strict=True)
        ]
        layer = Convolution(
            weights.astype(np.float32), bias.astype(np.float32),
            Window(kernel, (1, 1), padding), groups,
        )  # fmt: skip
        return self.add(layer, (*sides, outputs), source)

    def kernel(self, source):
        return tuple(
            int(self.rng.integers(1, min(side, 3) + 1)) for side in self.shapes[source][:2]
        )

    def step(self, kind):
        rng, source = self.rng, self.picture()
        height, width, channels = shape = self.shapes[source]
        if kind == "conv":
            self.weighted(source, int(rng.integers(1, 7)), self.kernel(source))
        elif kind == "depthwise":
            pads = ((1, 1), (1, 1)) if min(height, width) > 2 else ((0, 0), (0, 0))
            kernel = (3, 3) if pads[0][0] else (1, 1)
            self.weighted(source, channels * int(rng.integers(1, 3)), kernel, channels, pads)
        elif kind in ("max", "average"):
            kernel = self.kernel(source)
            sides = (height - kernel[0] + 1, width - kernel[1] + 1)
            self.add(Pooling(kind, Window(kernel)), (*sides, channels), source)
        elif kind == "pad":
            self.add(Padding(((1, 0), (0, 2))), (height + 1, width + 2, channels), source)
        elif kind == "clip":
            self.add(Clip(*CLAMPS[rng.integers(len(CLAMPS))]), shape, source)
        elif kind == "function":
            functions = (HardSwish(), LeakyRelu(float(rng.choice([0, 0.01, 0.3, 2.0]))),
                         *(Activation(name) for name in ("relu", "tanh", "logistic")))  # fmt: skip
            self.add(functions[rng.integers(len(functions))], shape, source)
        elif kind == "affine":
            self.add(Affine(rng.normal(size=channels), rng.normal(size=channels)), shape, source)
        elif kind == "mean":
            axes = ((0,), (1,), (0, 1))[rng.integers(3)]
            made = tuple(1 if axis in axes else side for axis, side in enumerate(shape))
            self.add(Mean(axes, True), made, source)
        elif kind in ("add", "mul", "concat"):
            self.meet(kind, source)
        else:
            gate = self.add(Mean((0, 1), True), (1, 1, channels), source)
            read = (source, gate) if rng.random() < 0.5 else (gate, source)
            self.add(Mul(), shape, *read)

    def meet(self, kind, source):
        """With another of its sides, made for it if there is none."""
        shape = self.shapes[source]
        like = [
            i
            for i, other in enumerate(self.shapes)
            if len(other) == 3
            and other[: 2 if kind == "concat" else 3] == shape[: 2 if kind == "concat" else 3]
        ]
        other = int(self.rng.choice(like))
        if len(like) == 1 and self.rng.random() < 0.8:
            other = self.weighted(source, shape[2])
        if kind == "concat":
            parts = [source, other, *([source] if self.rng.random() < 0.2 else [])]
            width = sum(self.shapes[part][2] for part in parts)
            self.add(Concat(), (*shape[:2], width), *parts)
        else:
            self.add(Add() if kind == "add" else Mul(), shape, source, other)

    def finish(self):
        read = {source for sources in self.inputs for source in sources}
        loose = [i for i in range(len(self.shapes)) if i not in read][-MOST_INPUTS:]
        end = loose[0]
        if len(loose) > 1:
            flat = len({self.shapes[i][:-1] for i in loose}) > 1
            sizes = [int(np.prod(self.shapes[i])) if flat else self.shapes[i][-1] for i in loose]
            front = () if flat else self.shapes[end][:-1]
            end = self.add(Concat(), (*front, sum(sizes)), *loose)
        size = int(np.prod(self.shapes[end]))
        weights = self.rng.normal(size=(4, size)).astype(np.float32)
        self.add(Linear(weights, np.zeros(4, np.float32)), (4,), end)
        if self.rng.random() < 0.3:
            self.add(Activation("softmax"), (4,), len(self.layers))
        return Graph(tuple(self.layers), tuple(self.shapes), tuple(self.inputs))


def random_graph(seed: int, steps: int = 9) -> Graph:
    """Up to so many steps, then all that nobody reads side by side, and a linear layer."""
    build = _Builder(seed)
    for _ in range(int(build.rng.integers(1, steps + 1))):
        build.step(str(build.rng.choice(KINDS)))
    return build.finish()


def random_graph_program(seed: int) -> Program:
    """Of a random graph, with ranges drawn without a look at its values."""
    graph = fold_affine(random_graph(seed))
    rng = np.random.default_rng([seed, 1])
    spread = float(rng.choice([0.0, 1.0, 3.0]))
    sizes = 10 ** rng.uniform(-spread, spread, len(graph.shapes))
    sides = rng.choice([[-1, 1], [0, 1], [-1, 0], [-1, 0.1], [-0.01, 1]], len(graph.shapes))
    ranges = [(float(low), float(high)) for low, high in sides * sizes[:, None]]
    return quantize(graph, ranges)
