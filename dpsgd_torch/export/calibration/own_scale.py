"""Averages over a whole image as means, which have a scale of their own.

AVERAGE_POOL_2D keeps its input's scale [TensorFlow Lite, quantization specification], so that an
average, which is far smaller than the largest of many values, has few steps left: MEAN has all 256.
"""

from __future__ import annotations

import dataclasses

from dpsgd_torch.export.graph import Graph, Layer, Pooling
from dpsgd_torch.export.kinds.mean import Mean
from dpsgd_torch.export.program import Window


def with_own_scale(graph: Graph) -> Graph:
    """The same function; pools of averages whose one window is the whole image become means.

    >>> pool = Pooling("average", Window((4, 4)))
    >>> with_own_scale(Graph((pool,), ((4, 4, 2), (1, 1, 2)))).layers
    (Mean(axes=(0, 1), keepdims=True),)
    """
    layers = (
        _mean(layer, graph.shapes[sources[0]])
        for layer, sources in zip(graph.layers, graph.sources, strict=True)
    )
    return dataclasses.replace(graph, layers=tuple(layers))


def _mean(layer: Layer, shape: tuple[int, ...]) -> Layer:
    if isinstance(layer, Pooling) and layer.kind == "average" and len(shape) == 3:
        whole = Window((shape[0], shape[1]), layer.window.stride)
        if layer.window == whole:
            return Mean((0, 1), keepdims=True)
    return layer
