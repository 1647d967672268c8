"""Random convolutions, pools and paddings: kernels, strides, padding, dilations, groups."""

from random_draws import MOST_WEIGHTS, Draws

from dpsgd_torch.export.graph import Convolution, Padding, Pooling
from dpsgd_torch.export.program import Window

NO_PADS = ((0, 0), (0, 0))


class Windows(Draws):
    def window(self, source, most=4, kind="conv"):
        """Kernel, stride and padding; only convolutions may see windows outside the picture."""
        shape = self.shapes[source][:2]
        kernel = tuple(self.whole(1, min(side, most)) for side in shape)
        stride = tuple(int(self.rng.choice([1, 1, 2, 3])) for _ in shape)
        apart = (1, 1)
        if kind == "conv" and self.chance(0.5):
            apart = tuple(map(self.dilation, shape, kernel))
        reach, padding = Window(kernel, dilation=apart).reach, NO_PADS
        if self.chance(0.5):
            more = 1 if kind == "conv" and self.chance(0.2) else -1
            padding = tuple((self.whole(0, k + more), self.whole(0, k + more)) for k in reach)
            if kind == "average" and self.chance(0.7):  # as TensorFlow Lite can say it
                padding = tuple(map(same_padding, shape, kernel, stride))
        return Window(kernel, stride, padding, apart)

    def dilation(self, side, kernel):
        """1 where the kernel is one cell; no cell of the first window lies outside."""
        return 1 if kernel == 1 else self.whole(1, min(4, (side - 1) // (kernel - 1)))

    def weighted(self, source, each, groups, window):
        height, width, channels = self.shapes[source]
        cells = window.kernel[0] * window.kernel[1] * channels // groups
        outputs = groups * max(1, min(each, MOST_WEIGHTS // (groups * cells)))
        weights = self.weights(outputs, *window.kernel, channels // groups)
        layer = Convolution(weights, self.bias(outputs), window, groups)
        return self.add(layer, (*sides_of((height, width), window), outputs), source)

    def conv(self, source):
        channels = self.shapes[source][2]
        groups = 1
        if self.chance(0.3):
            between = [g for g in range(2, channels) if channels % g == 0]
            groups = int(self.rng.choice(between or [channels]))
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
        return self.add(Pooling(kind, window), (*sides_of(sides, window), channels), source)

    def pad(self, source):
        height, width, channels = self.shapes[source]
        (a, b), (c, d) = padding = tuple((self.whole(0, 2), self.whole(0, 2)) for _ in range(2))
        return self.add(Padding(padding), (height + a + b, width + c + d, channels), source)


def sides_of(shape, window):
    return [
        (side + sum(pads) - kernel) // stride + 1
        for side, kernel, stride, pads in zip(
            shape, window.reach, window.stride, window.padding, strict=True
        )
    ]


def same_padding(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
