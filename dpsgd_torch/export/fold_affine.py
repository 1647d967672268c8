"""Constants that scale and shift channels, folded into their neighbours in float64.

An ``Affine`` goes into the linear layer or convolution that makes what it alone reads, or into the
one that alone reads what it makes (where that pads, only if it does not shift: padded cells are
zero behind it). What is left becomes a depthwise 1 × 1 convolution of a picture, or a diagonal
linear layer of a short vector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.graph import Convolution, Graph, Layer, Linear
from dpsgd_torch.export.kinds.affine import Affine
from dpsgd_torch.export.program import Window

_MOST_DIAGONAL = 64
"""Features; 4 KiB of weights."""

Weighted = Linear | Convolution


def fold_affine(graph: Graph) -> Graph:
    """The same function without an ``Affine``.

    Raises:
        ExportError: one of a long vector that no layer takes along.
    """
    while True:
        index = next((i for i, at in enumerate(graph.layers) if isinstance(at, Affine)), None)
        if index is None:
            return graph
        graph = _fold(graph, index)


def _fold(graph: Graph, index: int) -> Graph:
    affine = graph.layers[index]
    assert isinstance(affine, Affine)
    (source,) = graph.sources[index]
    last = index + 1 == len(graph.layers)
    makes = graph.layers[source - 1] if source else None
    if graph.readers(source) == (index,) and (not last or source == index):
        if isinstance(makes, Weighted) and len(makes.bias) == affine.factor.size:
            return without(_with(graph, source - 1, after(makes, affine)), index)
        if isinstance(makes, Affine):
            return without(_with(graph, source - 1, _both(makes, affine)), index)
    readers = graph.readers(index + 1)
    reader = graph.layers[readers[0]] if len(readers) == 1 else None
    if isinstance(reader, Weighted) and not (_pads(reader) and affine.offset.any()):
        return without(_with(graph, readers[0], before(affine, reader)), index)
    if isinstance(reader, Affine):
        return without(_with(graph, readers[0], _both(affine, reader)), index)
    return _with(graph, index, _alone(affine, graph.shapes[index + 1], graph.names[index:]))


def _both(first: Affine, second: Affine) -> Affine:
    return Affine(first.factor * second.factor, first.offset * second.factor + second.offset)


def after(layer: Weighted, affine: Affine) -> Weighted:
    """The layer, then the affine."""
    factor = affine.factor.reshape(-1, *[1] * (layer.weights.ndim - 1))
    return replace(
        layer,
        weights=np.asarray(layer.weights * factor, np.float32),
        bias=np.asarray(layer.bias * affine.factor + affine.offset, np.float32),
    )


def before(affine: Affine, layer: Weighted) -> Weighted:
    """The affine, then the layer, which pads nothing that the affine shifts."""
    out, each = len(layer.weights), layer.weights.shape[-1]
    groups = layer.groups if isinstance(layer, Convolution) else 1
    repeats = each * groups // affine.factor.size  # a linear layer may read a picture
    factor, offset = (
        np.repeat(np.tile(part, repeats).reshape(groups, each), out // groups, axis=0).reshape(
            out, *[1] * (layer.weights.ndim - 2), each
        )
        for part in (affine.factor, affine.offset)
    )
    axes = tuple(range(1, layer.weights.ndim))
    shift = (layer.weights * offset).sum(axis=axes)
    return replace(
        layer,
        weights=np.asarray(layer.weights * factor, np.float32),
        bias=np.asarray(layer.bias + shift, np.float32),
    )


def _alone(affine: Affine, shape: tuple[int, ...], names: tuple[str, ...]) -> Weighted:
    factor, offset = affine.factor.astype(np.float32), affine.offset.astype(np.float32)
    if len(shape) == 3:
        window = Window((1, 1))
        return Convolution(factor.reshape(-1, 1, 1, 1), offset, window, len(factor))
    if shape[0] > _MOST_DIAGONAL:
        raise ExportError(
            f"operator = BatchNormalization, or Mul or Add of a constant{_at(names)}: on "
            f"{shape[0]} features that neither come from nor go to one linear layer alone; put it "
            "next to one, which takes it along"
        )
    return Linear(np.diag(factor), offset)


def _at(names: tuple[str, ...]) -> str:
    return f", node {names[0]}" if names and names[0] else ""


def _pads(layer: Weighted) -> bool:
    return isinstance(layer, Convolution) and any(map(any, layer.window.padding))


def _with(graph: Graph, index: int, layer: Layer) -> Graph:
    return replace(graph, layers=(*graph.layers[:index], layer, *graph.layers[index + 1 :]))


def without(graph: Graph, index: int) -> Graph:
    """Without layer ``index``: those that read what it makes read what it reads."""
    (source,) = graph.sources[index]

    def place(tensor: int) -> int:
        tensor = source if tensor == index + 1 else tensor
        return tensor - (tensor > index + 1)

    def left(parts: tuple[Any, ...], at: int) -> tuple[Any, ...]:
        return (*parts[:at], *parts[at + 1 :])

    inputs = tuple(tuple(map(place, reads)) for reads in left(graph.sources, index))
    return replace(
        graph,
        layers=left(graph.layers, index),
        shapes=left(graph.shapes, index + 1),
        inputs=inputs,
        names=left(graph.names, index),
    )
