"""Cross-layer equalisation [Nagel et al. 2019, Sec. 4.1]: channels scaled to like ranges."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.graph import (
    Activation,
    Convolution,
    Floats,
    Graph,
    Layer,
    Linear,
    Padding,
    Pooling,
)

_SWEEPS = 20
_SETTLED = 1e-3  # relative
_MOST = 2.0**10  # of a channel's scale, either way: a channel next to dead stays small


def equalized(graph: Graph) -> Graph:
    """The same function, where two layers share the range of each channel between them.

    Channel i of a layer is divided by s_i = √(r1_i / r2_i), and what the next layer reads of it
    multiplied, r1 and r2 being the largest weights there: equal in real arithmetic, for ReLU,
    pools and zero padding between them carry a positive factor through. A tensor that two layers
    read, or that anything else reads, is left as it is.

    >>> first = Linear(np.array([[8.0], [0.5]], np.float32), np.zeros(2, np.float32))
    >>> second = Linear(np.array([[0.5, 8.0]], np.float32), np.zeros(1, np.float32))
    >>> made = equalized(Graph((first, second), ((1,), (2,), (1,))))
    >>> [layer.weights.ravel().tolist() for layer in made.layers]
    [[2.0, 2.0], [2.0, 2.0]]
    """
    layers = list(graph.layers)
    pairs = [(first, second) for first in range(len(layers))
             if (second := _next(graph, first)) is not None]  # fmt: skip
    for _ in range(_SWEEPS):
        moved = 1.0
        for first, second in pairs:
            scale = _scale(layers[first], layers[second])
            layers[first] = _divided(layers[first], scale)
            layers[second] = _multiplied(layers[second], scale)
            moved = max(moved, float(np.maximum(scale, 1 / scale).max()))
        if moved < 1 + _SETTLED:
            break
    return dataclasses.replace(graph, layers=tuple(layers))


def _next(graph: Graph, index: int) -> int | None:
    """The layer with weights that alone reads what ``index`` makes, through what scales along."""
    if not isinstance(graph.layers[index], Linear | Convolution):
        return None
    while True:
        readers = graph.readers(index + 1)
        if len(readers) != 1:
            return None
        (index,) = readers
        layer = graph.layers[index]
        if isinstance(layer, Linear | Convolution):
            return index
        if not (isinstance(layer, Pooling | Padding) or layer == Activation("relu")):
            return None


def _scale(first: Layer, second: Layer) -> NDArray[np.float64]:
    """s of each channel between them; 1 where either side is dead."""
    assert isinstance(first, Linear | Convolution)
    channels = len(first.bias)
    made = np.abs(first.weights.reshape(channels, -1)).max(axis=1).astype(np.float64)
    read = np.abs(_by_channel(second, channels)).max(axis=1).astype(np.float64)
    alive = (made > 0) & (read > 0)
    ratio = np.where(alive, made, 1.0) / np.where(alive, read, 1.0)
    return np.clip(np.sqrt(ratio), 1 / _MOST, _MOST)


def _by_channel(layer: Layer, channels: int) -> Floats:
    """(channels, …): the weights that each channel of the input meets."""
    if isinstance(layer, Linear):  # channels lie last in what is flattened
        return np.moveaxis(layer.weights.reshape(len(layer.weights), -1, channels), 2, 0).reshape(
            channels, -1
        )
    assert isinstance(layer, Convolution)
    grouped = layer.weights.reshape(layer.groups, -1, layer.weights.shape[-1])
    return np.moveaxis(grouped, 2, 1).reshape(channels, -1)


def _divided(layer: Layer, scale: NDArray[np.float64]) -> Layer:
    assert isinstance(layer, Linear | Convolution)
    outwards = scale.reshape(-1, *[1] * (layer.weights.ndim - 1))
    return dataclasses.replace(
        layer,
        weights=(layer.weights / outwards).astype(np.float32),
        bias=(layer.bias / scale).astype(np.float32),
    )


def _multiplied(layer: Layer, scale: NDArray[np.float64]) -> Layer:
    if isinstance(layer, Linear):
        spread = np.tile(scale, layer.weights.shape[1] // len(scale))
        return dataclasses.replace(layer, weights=(layer.weights * spread).astype(np.float32))
    assert isinstance(layer, Convolution)
    per_group = scale.reshape(layer.groups, 1, 1, 1, -1)
    grouped = layer.weights.reshape(layer.groups, -1, *layer.weights.shape[1:])
    weights = (grouped * per_group).reshape(layer.weights.shape)
    return dataclasses.replace(layer, weights=weights.astype(np.float32))
