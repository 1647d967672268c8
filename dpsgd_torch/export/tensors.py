"""Tensors of the integer program, and how a kernel moves over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Tensor:
    """Shape of one example, (features,) or (height, width, channels), and what its values mean."""

    shape: tuple[int, ...]
    scale: float
    """A float32."""
    zero_point: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Window:
    """How a kernel moves; ``padding`` is ((top, bottom), (left, right)).

    Padded cells hold the input's zero point in a convolution and are left out by a pool.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    """How far apart a convolution's cells lie."""

    @property
    def reach(self) -> tuple[int, int]:
        """From the first of its cells to the last, both included."""
        down, across = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return down, across
