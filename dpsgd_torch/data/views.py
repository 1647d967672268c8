"""Numbers that an augmentation draws: each row's own, whoever else is in its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpsgd_torch.data.units import Indices

_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Draws:
    """Uniform numbers for each view of each row, from a key, the row's number and the view's.

    * A row's numbers hang on nothing else: not on the batch, its order, its pieces or the rank.
    * By a mixing function [Steele, Lea, Flood 2014, SplitMix]; not cryptographic: no ε rests on
      how views are drawn.

    >>> draws = Draws(bytes(32), np.array([7, 3, 7]), np.array([0, 0, 0]))
    >>> (a, b, c), more = draws(2), draws()
    >>> a.shape, bool(a.equal(c)), bool(a.equal(b)), more.shape
    (torch.Size([2]), True, False, torch.Size([3]))
    """

    def __init__(
        self, key: bytes, rows: Indices, views: Indices, device: torch.device | str = "cpu"
    ) -> None:
        words = np.frombuffer(key, "<u8")
        state = _mixed(rows.astype(np.uint64) + words[0])
        state = _mixed((state ^ words[1]) + views.astype(np.uint64))
        self._state, self._drawn, self._device = state ^ words[2], 0, device

    def __call__(self, *shape: int) -> torch.Tensor:
        """(rows, *shape) uniform in [0, 1), float32; each call draws others."""
        count = int(np.prod(shape, dtype=np.int64))
        numbers = np.arange(self._drawn, self._drawn + count, dtype=np.uint64)
        self._drawn += count
        words = _mixed(self._state[:, None] + (numbers + np.uint64(1)) * np.uint64(_STEP))
        uniform = (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        found = torch.from_numpy(uniform).view(len(self._state), *shape)
        return found.to(self._device)

    def __len__(self) -> int:
        return len(self._state)


Augment = Callable[[Any, Draws], Any]


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return words ^ (words >> np.uint64(31))
