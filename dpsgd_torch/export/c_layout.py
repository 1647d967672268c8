"""Weights as the C kernels read them: rows of quads, two channels in each 16-bit lane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.program import Int8

EXACT_SUM = 2**23
"""Lane sums are read modulo 2^32, and the odd channel's share is their difference / 256."""

EXACT_QUADS = (EXACT_SUM - 1) // (128 * 127) // 4
"""So many quads cannot reach that sum, whatever the weights."""


@dataclass(frozen=True)
class Rows:
    """How a channel's inputs are cut: rows ``stride`` bytes apart, of quads of four inputs.

    Each chunk of rows has lane sums of its own.
    """

    chunks: int
    rows: int
    quads: int
    last_quads: int
    stride: int

    def starts(self) -> list[tuple[int, int]]:
        """(first input, quads) of each row."""
        count = self.chunks * self.rows
        return [
            (row * self.stride, self.last_quads if row == count - 1 else self.quads)
            for row in range(count)
        ]


def rows_of(weights: Int8, may_read_beyond: bool) -> Rows:
    """The cut of a vector of inputs that stores fewest zeros and whose sums are exact.

    Up to three bytes beyond the inputs are read where allowed, and meet weights of zero;
    else the last row overlaps the one before it (at least four inputs).

    >>> rows_of(np.ones((2, 714), np.int8), may_read_beyond=False)
    Rows(chunks=1, rows=2, quads=178, last_quads=1, stride=710)
    """
    depth = weights.shape[1]
    short = exact(weights)
    if depth % 4 == 0 or may_read_beyond:
        quads = -(-depth // 4)
        if short or quads <= EXACT_QUADS:
            return Rows(1, 1, quads, quads, 0)
        rows = -(-quads // EXACT_QUADS)
        each = -(-quads // rows)
        return Rows(rows, 1, each, quads - (rows - 1) * each, 4 * each)
    if short or depth // 4 <= EXACT_QUADS:
        return Rows(1, 2, depth // 4, 1, depth - 4)
    for rows in range(2, depth, 2):  # an even count can always be spread evenly
        for quads in range(-(-depth // (4 * rows)), EXACT_QUADS + 1):
            stride, rest = divmod(depth - 4 * quads, rows - 1)
            if rest == 0 and 0 < stride <= 4 * quads:
                return Rows(rows, 1, quads, quads, stride)
    raise AssertionError(depth)


def exact(weights: Int8) -> bool:
    """Whether the odd channels' sums stay below 2^23 for every input."""
    sums = np.abs(weights[1::2].astype(np.int64)).sum(axis=1)
    return bool(sums.max(initial=0) * 128 < EXACT_SUM)


def pack(weights: Int8, rows: Rows, offsets: list[int] | None = None) -> NDArray[np.uint32]:
    """(channels, inputs) → words, in the order in which ``channels.c`` meets them.

    ``offsets``: which of the weights' inputs each row begins with, if not as the rows lie. An
    input that two rows cover counts in the first.
    """
    channels, depth = weights.shape
    starts = rows.starts()
    offsets = offsets or [start for start, _ in starts]
    padded = np.zeros((channels + channels % 2, 4 * sum(quads for _, quads in starts)), np.int32)
    place = seen = 0
    for offset, (_, quads) in zip(offsets, starts, strict=True):
        first, end = max(offset, seen), min(offset + 4 * quads, depth)
        padded[:channels, place + first - offset : place + end - offset] = weights[:, first:end]
        place, seen = place + 4 * quads, end
    lanes = (padded[0::2] + 256 * padded[1::2]) & 0xFFFF
    quads_of = lanes.astype(np.uint32).reshape(
        len(lanes), -1, 2, 2
    )  # pair, quad, x01 | x23, parity
    words = quads_of[:, :, 0, :] | quads_of[:, :, 1, :] << np.uint32(16)
    blocks = [
        words[pair : pair + 2].transpose(1, 2, 0).reshape(-1) for pair in range(0, len(words), 2)
    ]
    return np.concatenate(blocks)
