"""The integer program as it grows, layer by layer, and what scales its tensors get."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from dpsgd_torch.export.clamps import FREE, Clamp, Limits, fused, limits
from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    FloatKind,
    Graph,
    Layer,
    Linear,
    Padding,
    Pooling,
    clamp_of,
)
from dpsgd_torch.export.kinds.bound import ClampInt8
from dpsgd_torch.export.program import Int8, Operation, Program, Step, Tensor
from dpsgd_torch.export.ranges import Range

Real = type[np.float32] | type[np.float64]

_ENDS = {"tanh": 8.0, "logistic": 16.0}  # within 1e-6 of where they end


@dataclass
class Lowering:
    """Steps so far. ``made``: which of the program's tensors stands for a tensor of the graph."""

    graph: Graph
    ranges: list[Range]
    tensors: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    made: dict[int, int] = field(default_factory=dict)
    scaled_as: dict[int, int] = field(default_factory=dict)
    """Which tensors get the scale of another, made later."""

    def __post_init__(self) -> None:
        self.scaled_as = _scaled_as(self.graph)
        self.tensors.append(self.tensor(0))
        self.made[0] = 0

    def add(self, operation: Operation, output: Tensor, *sources: int) -> int:
        """One step; returns the tensor that it makes."""
        self.steps.append(Step(operation, output, sources))
        self.tensors.append(output)
        return len(self.steps)

    def program(self, labels: tuple[str, ...]) -> Program:
        """What has been added, where the graph's output must be the last tensor made."""
        steps = tuple(self.steps)
        return Program(self.tensors[0], steps, labels=labels, as_given=self.graph.as_given)

    def tensor(self, index: int, least: float = 1e-30) -> Tensor:
        """Scale and zero point that map [low, high], which holds zero, to −128 … 127.

        What feeds tanh or logistic alone is cut where these no longer change; and what reaches
        them or a softmax has a scale no smaller than their fixed point can tell apart.
        """
        shape = self.graph.shapes[index]
        index = self.scaled_as.get(index, index)
        low, high = self.ranges[index]
        readers = {self.graph.layers[reader] for reader in self.graph.readers(index)}
        ends = {_ENDS.get(r.kind, math.inf) if isinstance(r, Activation) else math.inf
                for r in readers}  # fmt: skip
        if ends:
            low, high = max(low, -max(ends)), min(high, max(ends))
        if any(isinstance(r, Activation) and r.kind != "relu" for r in self._reached(index)):
            least = max(least, 2.0**-25)
        scale = float(np.float32((high - low) / 255))
        if scale < 1e-30:  # a dead layer: all zero, where what feeds it need not be
            return Tensor(shape, float(np.float32(max(1.0, least))), 0)
        scale = float(np.float32(max(scale, least)))
        return Tensor(shape, scale, min(max(round(-128 - low / scale), -128), 127))

    def _reached(self, index: int) -> set[Layer]:
        """The layers that a tensor reaches, up to those that scale it anew."""
        found: set[int] = set()
        ahead = [index]
        while ahead:
            for reader in set(self.graph.readers(ahead.pop())) - found:
                found.add(reader)
                if not isinstance(self.graph.layers[reader], Linear | Convolution):
                    ahead.append(reader + 1)
        return {self.graph.layers[reader] for reader in found}


@dataclass(frozen=True)
class Asked:
    """One layer to be lowered. ``sources``: what it reads, of the program's tensors."""

    into: Lowering
    sources: tuple[int, ...]
    target: int
    """The graph's tensor it makes, that after the clamp where it takes one along."""
    clamp: Clamp | None

    @property
    def tensors(self) -> list[Tensor]:
        """What it reads."""
        return [self.into.tensors[source] for source in self.sources]

    @property
    def before(self) -> Tensor:
        """What it reads first."""
        return self.tensors[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it makes."""
        return self.into.graph.shapes[self.target]

    def after(self, least: float = 1e-30) -> Tensor:
        """What it makes, with a scale that is no smaller than ``least``."""
        return self.into.tensor(self.target, least)

    def limits(self, after: Tensor) -> Limits:
        """The clamp that it takes along on the output's grid, if TensorFlow Lite can fuse it."""
        wanted = FREE if self.clamp is None else limits(self.clamp, after)
        return FREE if fused(wanted, after) is None else wanted

    def finished(self, made: int) -> int:
        """What was made, clamped by a step of its own where ``limits`` said nothing of it."""
        if self.clamp is None or self.limits(self.into.tensors[made]) != FREE:
            return made
        return clamped(self.into, made, self.clamp)

    def add(self, operation: Operation, output: Tensor) -> int:
        """One step that reads what the layer reads."""
        return self.into.add(operation, output, *self.sources)


class LayerKind(FloatKind):
    """One layer with its integers; one file a kind, in ``kinds/``."""

    @abstractmethod
    def lower(self, asked: Asked) -> int:
        """Add steps to the integer program; returns the tensor that stands for the output."""


def clamped(into: Lowering, source: int, clamp: Clamp) -> int:
    """The tensor clamped on its own grid; itself where nothing lies beyond the ends."""
    tensor = into.tensors[source]
    ends = limits(clamp, tensor)
    if source > 0 and ends == FREE:
        return source
    return into.add(ClampInt8(ends), tensor, source)


def agreed(after: Tensor, table: Callable[[Tensor, Real], Int8]) -> Tensor:
    """The output, its scale one float32 up until one table comes of dividing scales either way.

    Versions of TFLM divide them in float32 or in float64 where an activation stands alone.
    """
    while not np.array_equal(table(after, np.float32), table(after, np.float64)):
        scale = float(np.nextafter(np.float32(after.scale), np.float32(np.inf)))
        after = replace(after, scale=scale)
    return after


def _scaled_as(graph: Graph) -> dict[int, int]:
    """What a layer that wants one grid reads alone, by what that layer makes.

    And what a maximum, a clamp, a padding or a copy alone reads on the way there: they keep the
    grid, and cutting a value to the range behind them before or after them is the same.
    """
    found: dict[int, int] = {}
    for index in reversed(range(len(graph.layers))):
        layer, made = graph.layers[index], index + 1
        if isinstance(layer, FloatKind) and layer.one_grid:
            grid = found.get(made, made)
        elif made in found and _keeps_grid(layer):
            grid = found[made]
        else:
            continue
        for source in graph.sources[index]:
            if source and graph.readers(source) == (index,):
                found[source] = grid
    return found


def _keeps_grid(layer: Layer) -> bool:
    if isinstance(layer, Pooling):
        return layer.kind == "max"
    if isinstance(layer, FloatKind):
        return layer.keeps_grid
    return isinstance(layer, Padding) or clamp_of(layer) is not None
