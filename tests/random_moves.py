"""Random layers that move values, or count them in another shape, and compute nothing."""

from random_draws import Draws

from dpsgd_torch.export.graph import Pooling
from dpsgd_torch.export.kinds.crop import Crop
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.kinds.transpose import Transpose
from dpsgd_torch.export.kinds.upsample import Upsample
from dpsgd_torch.export.kinds.view import View
from dpsgd_torch.export.program import Window


class Moves(Draws):
    def factors(self, size, count):
        """So many numbers whose product it is."""
        found = []
        for _ in range(count - 1):
            part = int(self.rng.choice([d for d in range(1, size + 1) if size % d == 0]))
            found.append(part)
            size //= part
        return tuple(self.rng.permutation([*found, size]).tolist())

    def shape_of(self, size):
        """A vector's, a line's or a picture's."""
        kind = self.rng.random()
        if kind < 0.3:
            return (size,)
        return (1, *self.factors(size, 2)) if kind < 0.5 else self.factors(size, 3)

    def view(self, source):
        shape = self.shape_of(self.size(source))
        return self.add(View(shape), shape, source)

    def transpose(self, source):
        """Of the picture's own axes, or of any that the values can be counted by."""
        size, shape = self.size(source), self.shapes[source]
        if len(shape) == 3 and self.chance(0.4):
            order = tuple(self.rng.permutation(3).tolist())
            layer = Transpose(shape, order, tuple(shape[axis] for axis in order))
        else:
            sides = self.factors(size, self.whole(3, 5) if self.c_alone else self.whole(2, 4))
            order = tuple(self.rng.permutation(len(sides)).tolist())
            layer = Transpose(sides, order, self.shape_of(size))
        return self.add(layer, layer.shape, source)

    def crop(self, source):
        given = self.shapes[source]
        parts = [self.part(side) for side in given]
        starts, sizes, steps = (tuple(each) for each in zip(*parts, strict=True))
        return self.add(Crop(given, starts, sizes, steps), sizes, source)

    def part(self, side):
        """(start, size, step) along one axis; a third of them all of it."""
        if self.chance(0.35):
            return 0, side, 1
        start = self.whole(0, min(side - 1, side // 2))
        step = self.whole(2, 3) if self.chance(0.3) else 1
        most = -(-(side - start) // step)
        return start, self.whole(-(-most // 2), most), step

    def upsample(self, source):
        height, width, channels = shape = self.shapes[source]
        down, across = (1 if height == 1 and self.chance(0.7) else self.whole(1, 3),
                        self.whole(1, 3))  # fmt: skip
        return self.add(
            Upsample(shape, down, across), (height * down, width * across, channels), source
        )

    def over_channels(self, source):
        """The largest or the mean of each cell, as a picture of one channel."""
        height, width, channels = self.shapes[source]
        cells = height * width
        turned = Transpose((cells, channels), (1, 0), (1, channels, cells))
        source = self.add(turned, turned.shape, source)
        layer = Pooling("max", Window((1, channels))) if self.chance(0.6) else Mean((1,), True)
        made = self.add(layer, (1, 1, cells), source)
        shape = (height, width, 1)
        return self.add(View(shape), shape, made)
