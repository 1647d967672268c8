"""Bias correction [Nagel et al. 2019, Sec. 4.2]: what rounding shifts on average, taken back."""

from __future__ import annotations

import dataclasses

import numpy as np

from dpsgd_torch.export.graph import Convolution, Floats, Graph, Linear, apply, evaluate
from dpsgd_torch.export.program import Conv2D, Dense, Int8, Tensor
from dpsgd_torch.export.quantize import lowered
from dpsgd_torch.export.ranges import Range
from dpsgd_torch.export.reference import carry_out


def bias_corrected(graph: Graph, ranges: list[Range], inputs: Floats) -> Graph:
    """The graph whose integers have, channel by channel, the mean that its reals have.

    The integer program is carried out layer by layer on ``inputs``; where a layer's sums, in its
    own integers and of what reached it, are off on average, its bias takes that back before the
    layers after it are carried out.

    Args:
        graph: the float model.
        ranges: of its tensors, by which it becomes integers.
        inputs: (batch, *shape), channels last, public or made up: biases come to depend on them.
    """
    into = lowered(graph, ranges)
    program = into.program(())
    layer_of = {into.made[index + 1] - 1: index for index, layer in enumerate(graph.layers)
                if isinstance(layer, Linear | Convolution)}  # fmt: skip
    reals = evaluate(graph, inputs)
    layers = list(graph.layers)
    tensors: list[Int8] = [program.quantize(inputs).reshape(-1, *program.input.shape)]
    for place, (step, reads) in enumerate(zip(program.steps, program.sources, strict=True)):
        sources = [program.tensors[read] for read in reads]
        read = [tensors[each] for each in reads]
        operation = step.operation
        if place in layer_of and isinstance(operation, Dense | Conv2D):
            index = layer_of[place]
            layer = layers[index]
            assert isinstance(layer, Linear | Convolution)
            sums = _sums(layer, operation, read[0], sources[0])
            shift = (sums - reals[index + 1].reshape(sums.shape)).reshape(-1, len(layer.bias))
            off = shift.mean(axis=0)
            layers[index] = dataclasses.replace(layer, bias=(layer.bias - off).astype(np.float32))
            units = sources[0].scale * operation.weight_scales.astype(np.float64)
            whole = operation.bias - np.round(off / units)
            operation = dataclasses.replace(operation, bias=whole.astype(np.int32))
        tensors.append(carry_out(operation, read, sources, step.output))
    return dataclasses.replace(graph, layers=tuple(layers))


def _sums(
    layer: Linear | Convolution, operation: Dense | Conv2D, x: Int8, before: Tensor
) -> Floats:
    """What the integers stand for before they are scaled, rounded and cut."""
    scales = operation.weight_scales.astype(np.float64)
    weights = operation.weights * scales.reshape(-1, *[1] * (operation.weights.ndim - 1))
    bias = operation.bias * scales * before.scale
    rounded = dataclasses.replace(layer, weights=weights.reshape(layer.weights.shape), bias=bias)
    return apply(rounded, before.scale * (x.astype(np.float64) - before.zero_point))
