"""Cross-layer equalisation: channels scaled to like ranges of what they say.

Nagel et al. 2019, Sec. 4.1, level weights, which share one scale a layer there. Here each output
channel's weights have a scale of their own, and what shares one is a tensor's channels: these are
levelled, as by Meller et al. 2019.
"""

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
    evaluate,
)

_LEFT_OUT = 1e-4  # of a channel's values
_MOST = 2.0**6  # that a channel is raised: one next to dead stays small


def equalized(graph: Graph, public_inputs: Floats) -> Graph:
    """The same function, where a tensor's channels have ranges that are more alike.

    Channel i of a layer is divided by s_i, and what the next layer reads of it multiplied: equal in
    real arithmetic, for ReLU, pools and zero padding between them carry a positive factor through.
    With q_i the channel's reach (but for one value in 10,000) and q the largest, s_i = q_i / q
    where each filter of the next layer reads one channel, whose weights have a scale of their own;
    else √(q_i / q), since the weights that read a raised channel are rounded beside larger ones. A
    tensor that two layers read, or that anything else reads, is left as it is.

    Args:
        graph: of any layers.
        public_inputs: (batch, …), channels last, public or made up.

    >>> first = Linear(np.array([[8.0], [0.5]], np.float32), np.zeros(2, np.float32))
    >>> second = Linear(np.array([[0.5, 8.0]], np.float32), np.zeros(1, np.float32))
    >>> made = equalized(Graph((first, second), ((1,), (2,), (1,))), np.ones((3, 1), np.float32))
    >>> [layer.weights.ravel().tolist() for layer in made.layers]
    [[8.0, 2.0], [0.5, 2.0]]
    """
    layers = list(graph.layers)
    tensors = evaluate(graph, public_inputs)
    for first in range(len(layers)):
        second = _next(graph, first)
        if second is not None:
            scale = _scale(layers[first], layers[second], tensors[graph.sources[second][0]])
            layers[first] = _divided(layers[first], scale)
            layers[second] = _multiplied(layers[second], scale)
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


def _scale(first: Layer, second: Layer, between: Floats) -> NDArray[np.float64]:
    """s of each channel of what the second layer reads; 1 of a channel that says nothing."""
    assert isinstance(first, Linear | Convolution)
    channels = len(first.bias)  # they lie last, in what is flattened, too
    values = np.abs(between).reshape(-1, channels).astype(np.float64)
    reach = np.quantile(values, 1 - _LEFT_OUT, axis=0)
    share = np.where(reach > 0, reach / max(reach.max(), 1e-300), 1.0)
    alone = isinstance(second, Convolution) and second.weights.shape[-1] == 1
    return np.clip(share if alone else np.sqrt(share), 1 / _MOST, 1.0)


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
