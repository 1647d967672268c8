"""How far an operation may write over what it reads.

Where a kernel has read what it is about to overwrite, its output may begin a few bytes before its
input and grow over it.
"""

from __future__ import annotations

import numpy as np

from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    MaxPool2D,
    Operation,
    Rescale,
    Softmax,
    Table,
    Tensor,
    Window,
)

ALIGNMENT = 4


def lead(operation: Operation, source: Tensor, target: Tensor) -> int | None:
    """How many bytes before its input, or more, an output may begin and overwrite it; None: never.

    >>> pool = MaxPool2D(Window((2, 2)))
    >>> lead(pool, Tensor((14, 14, 16), 1.0, 0), Tensor((13, 13, 16), 1.0, 0))
    16
    """
    if isinstance(operation, Rescale | Table | Softmax):
        return 0
    if not isinstance(operation, Conv2D | MaxPool2D | AveragePool2D):
        return None
    # convolutions and maxima read all channels of a position until it is done
    whole = 0 if isinstance(operation, AveragePool2D) else target.shape[2]
    return aligned(max(0, _ahead(operation.window, source, target) + whole))


def lead_alone(operation: Operation, source: Tensor, target: Tensor) -> int | None:
    """How many bytes before its input an output may begin though at no other place near it.

    A maximum's cells then lie on its input's: whatever is written is the cell it was begun with.

    >>> pool = MaxPool2D(Window((2, 2)))
    >>> lead_alone(pool, Tensor((14, 14, 16), 1.0, 0), Tensor((13, 13, 16), 1.0, 0))
    0
    """
    if not isinstance(operation, MaxPool2D):
        return None
    ahead = max(0, _ahead(operation.window, source, target))
    return ahead if ahead == aligned(ahead) else None


def _ahead(window: Window, source: Tensor, target: Tensor) -> int:
    """The most bytes by which what is written passes the first cell that is still to be read."""
    reads = _first_reads(window, source, target) * source.shape[2]
    written = np.arange(len(reads)) * target.shape[2]
    still_read = np.minimum.accumulate(reads[::-1])[::-1]
    return int((written - still_read).max())


def _first_reads(window: Window, source: Tensor, target: Tensor) -> np.ndarray:
    """For each output position in order, the first cell of the input that it reads."""
    rows = np.arange(target.shape[0]) * window.stride[0] - window.padding[0][0]
    columns = np.arange(target.shape[1]) * window.stride[1] - window.padding[1][0]
    cells = np.maximum(rows, 0)[:, None] * source.shape[1] + np.maximum(columns, 0)[None, :]
    return cells.reshape(-1)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
