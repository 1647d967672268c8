"""What an ONNX name stands for: a tensor of the graph, and where each of its values lies there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def memory_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a tensor: (features,), or channels last, where a line is a picture one cell high.

    >>> memory_shape((3, 28, 20)), memory_shape((6, 119)), memory_shape((714,))
    ((28, 20, 3), (1, 119, 6), (714,))
    """
    if len(shape) == 1:
        return shape
    channels, *sides = shape
    return (1, *sides, channels) if len(sides) == 1 else (*sides, channels)


def natural(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Where each value of a tensor of ONNX's shape lies, if nothing has moved it."""
    order = np.arange(math.prod(shape))
    if len(shape) == 1:
        return order
    channels, *sides = shape
    return np.moveaxis(order.reshape(*sides, channels), -1, 0)


@dataclass(frozen=True, eq=False)
class Value:
    """``cells``: in ONNX's shape of one example, the place of each value in the graph's tensor.

    Flatten, Reshape, Transpose and their like move only these.
    """

    tensor: int
    cells: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example, as in ONNX."""
        return self.cells.shape

    @property
    def is_natural(self) -> bool:
        """Whether its values lie channels last, as layers take them."""
        return np.array_equal(self.cells, natural(self.shape))

    def moved(self, cells: NDArray[Any]) -> Value:
        """The same values in another shape or order."""
        return Value(self.tensor, np.asarray(cells, np.intp))


def channels_last(inputs: NDArray[Any]) -> NDArray[Any]:
    """(batch, channels, height, width) → (batch, height, width, channels); lines one cell high.

    >>> channels_last(np.zeros((2, 6, 119))).shape
    (2, 1, 119, 6)
    """
    if inputs.ndim < 3:
        return inputs
    moved = np.moveaxis(inputs, 1, -1)
    return np.ascontiguousarray(moved[:, None] if inputs.ndim == 3 else moved)
