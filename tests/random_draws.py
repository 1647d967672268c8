"""What random graphs are built with: numbers, weights, and layers that are added one by one."""

import numpy as np

from dpsgd_torch.export.graph import Linear

MOST_WEIGHTS = 4000  # of a layer


class Draws:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.shapes, self.layers, self.inputs = [], [], []

    def whole(self, least, most):
        return int(self.rng.integers(least, most + 1))

    def chance(self, of):
        return self.rng.random() < of

    def add(self, layer, shape, *read):
        self.layers.append(layer)
        self.inputs.append(tuple(read))
        self.shapes.append(tuple(int(side) for side in shape))
        return len(self.layers)

    def size(self, tensor):
        return int(np.prod(self.shapes[tensor]))

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

    def same(self, layer, *read):
        return self.add(layer, self.shapes[read[0]], *read)
