"""Inputs made up from a declared shape and range, from which ranges of activations are read.

They know nothing of any record. A layer answers an even mixture of all values weakly, for its
weights cancel, and an image of strokes or a lone peak strongly: each kind is a quarter of them, so
that few ranges come out too narrow.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_SEED = 20261129
_COARSE = 4  # cells a side, between which smooth inputs are drawn out


def synthetic_inputs(
    count: int, input_shape: tuple[int, ...], input_range: tuple[float, float]
) -> torch.Tensor:
    """(count, *input_shape) in float32, the same at every call.

    >>> synthetic_inputs(8, (3, 5, 5), (-1, 1)).shape
    torch.Size([8, 3, 5, 5])
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    kinds = (_even, _two_valued, _smooth, _sparse)
    parts = [kinds[i % len(kinds)](input_shape, generator) for i in range(count)]
    low, high = input_range
    shares = np.stack(parts) if parts else np.zeros((0, *input_shape))
    scaled = np.clip(low + (high - low) * shares, low, high)
    return torch.from_numpy(scaled.astype(np.float32))


def _even(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    return generator.random(shape)


def _two_valued(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    return (generator.random(shape) < generator.random()).astype(np.float64)


def _smooth(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    """A few values drawn out along the last two axes, as images and series are."""
    drawn = min(2, len(shape))
    coarse = generator.random((*shape[:-drawn], *(min(_COARSE, n) for n in shape[-drawn:])))
    for axis in range(-drawn, 0):
        coarse = _drawn_out(coarse, axis, shape[axis])
    return coarse


def _drawn_out(values: NDArray[np.float64], axis: int, size: int) -> NDArray[np.float64]:
    at = np.linspace(0, values.shape[axis] - 1, size)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    share = (at - low).reshape([-1 if a == values.ndim + axis else 1 for a in range(values.ndim)])
    before, after = values.take(low, axis), values.take(high, axis)
    return np.asarray(before + share * (after - before))


def _sparse(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    """One level everywhere, but for a tenth."""
    level = generator.integers(3) / 2  # at an end, or in the middle
    return np.where(generator.random(shape) < 0.1, generator.random(shape), level)
