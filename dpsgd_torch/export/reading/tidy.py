"""Copies out of the way: behind clamps, which a layer takes along, or off a convolution's end."""

from __future__ import annotations

from dataclasses import replace

from dpsgd_torch.export.fold_affine import without
from dpsgd_torch.export.graph import Convolution, Graph, clamp_of
from dpsgd_torch.export.kinds.crop import Crop
from dpsgd_torch.export.kinds.pick import Pick
from dpsgd_torch.export.kinds.view import View


def tidied(graph: Graph) -> Graph:
    """The same function; each copy behind the clamps that read it alone, and each end cut off a
    convolution taken off its padding, as a causal one has it.
    """
    index = 0
    while index < len(graph.layers):
        graph = _shorter(graph, index) or graph
        index += 1
    for index in range(len(graph.layers)):
        at = index
        while at > 0 and (swapped := _swapped(graph, at)):
            graph, at = swapped, at - 1
    return graph


def _swapped(graph: Graph, index: int) -> Graph | None:
    """A clamp that alone reads the copy before it changes places with it."""
    clamp, copy = graph.layers[index], graph.layers[index - 1]
    if clamp_of(clamp) is None or not isinstance(copy, Pick | View):
        return None
    if graph.sources[index] != (index,) or graph.readers(index) != (index,):
        return None
    (source,) = graph.sources[index - 1]
    layers, shapes, names = list(graph.layers), list(graph.shapes), list(graph.names)
    layers[index - 1 : index + 1] = clamp, copy
    shapes[index] = graph.shapes[source]
    names[index - 1 : index + 1] = names[index - 1 : index + 1][::-1]
    return replace(graph, layers=tuple(layers), shapes=tuple(shapes), names=tuple(names))


def _shorter(graph: Graph, index: int) -> Graph | None:
    """A convolution whose last rows and columns a crop that alone reads it takes away."""
    layer, readers = graph.layers[index], graph.readers(index + 1)
    if not isinstance(layer, Convolution) or len(readers) != 1:
        return None
    crop, last = graph.layers[readers[0]], readers[0] + 1 == len(graph.layers)
    if last and readers[0] != index + 1:
        return None
    height, width, channels = graph.shapes[index + 1]
    if not isinstance(crop, Crop) or any(crop.starts) or set(crop.steps) != {1}:
        return None
    cut = height - crop.sizes[0], width - crop.sizes[1]
    ends = [
        (before, after - less * stride)
        for (before, after), less, stride in zip(
            layer.window.padding, cut, layer.window.stride, strict=True
        )
    ]
    if crop.sizes[2] != channels or min(after for _, after in ends) < 0:
        return None
    layers, shapes = list(graph.layers), list(graph.shapes)
    layers[index] = replace(layer, window=replace(layer.window, padding=(ends[0], ends[1])))
    shapes[index + 1] = crop.sizes
    return without(replace(graph, layers=tuple(layers), shapes=tuple(shapes)), readers[0])
