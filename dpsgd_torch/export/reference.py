"""The integer program in numpy: what it computes here is what every other back end must."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.fixed_point import (
    Ints,
    divide,
    exp_of_negative,
    high_product,
    reciprocal_of_one_plus,
    requantize,
    saturate,
)
from dpsgd_torch.export.graph import cells, convolve
from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    Int8,
    MaxPool2D,
    Operation,
    OperationKind,
    Pad,
    Program,
    Requantization,
    Rescale,
    Softmax,
    Table,
    Tensor,
)

_SUM_BITS = 12  # integer bits of a softmax's denominator


def run(program: Program, inputs: Int8) -> Int8:
    """(batch, *input shape) → (batch, *output shape)."""
    return trace(program, inputs)[-1]


def trace(program: Program, inputs: Int8) -> list[Int8]:
    """Every tensor, the inputs first."""
    tensors = [np.asarray(inputs, np.int8).reshape(-1, *program.input.shape)]
    for step, indices in zip(program.steps, program.sources, strict=True):
        inputs_of = [tensors[index] for index in indices]
        sources = [program.tensors[index] for index in indices]
        tensors.append(carry_out(step.operation, inputs_of, sources, step.output))
    return tensors


def carry_out(
    operation: Operation, inputs: Sequence[Int8], sources: Sequence[Tensor], target: Tensor
) -> Int8:
    """One operation: (batch, *shape) of each source → (batch, *target.shape)."""
    if isinstance(operation, OperationKind):
        wide = [values.astype(np.int64) for values in inputs]
        made = operation.carry_out(wide, sources, target)
    else:
        made = _carry_out(operation, inputs[0], sources[0], target)
    return made.astype(np.int8).reshape(-1, *target.shape)


def _carry_out(operation: Operation, x: Int8, before: Tensor, after: Tensor) -> NDArray[np.int64]:
    match operation:
        case Dense():
            real = x.reshape(len(x), -1).astype(np.float64) - before.zero_point
            total = (real @ operation.weights.T.astype(np.float64)).astype(np.int64)
            return _finish(total + operation.bias, operation.requantization, after)
        case Conv2D():
            total = convolve(
                x.astype(np.float64) - before.zero_point,
                operation.weights.astype(np.float64),
                operation.window,
                operation.groups,
            ).astype(np.int64)
            return _finish(total + operation.bias, operation.requantization, after)
        case MaxPool2D(window, low, high):
            largest = cells(x.astype(np.int64), window, -128).max(axis=(-2, -1))
            return np.clip(largest, low, high)
        case AveragePool2D(window, low, high):
            count = cells(np.ones_like(x[:1], np.int64), window, 0).sum(axis=(-2, -1))
            total = cells(x.astype(np.int64), window, 0).sum(axis=(-2, -1))
            mean = np.where(total > 0, total + count // 2, total - count // 2)
            return np.clip(np.trunc(mean / count).astype(np.int64), low, high)
        case Rescale(how):
            return _finish(x.astype(np.int64) - before.zero_point, how, after)
        case Table():
            return operation.table[x.astype(np.int64) + 128].astype(np.int64)
        case Softmax():
            return softmax(x.astype(np.int64), operation)
        case Pad(padding):
            return np.pad(
                x.astype(np.int64), ((0, 0), *padding, (0, 0)), constant_values=before.zero_point
            )
    raise TypeError(operation)


def _finish(total: Ints, how: Requantization, after: Tensor) -> Ints:
    scaled = requantize(total, how.multiplier.astype(np.int64), how.shift.astype(np.int64))
    return np.clip(scaled + after.zero_point, how.low, how.high)


def softmax(x: Ints, how: Softmax) -> Ints:
    """Over the last axis: exp of the distance to the largest, over their sum."""
    distance = x - x.max(axis=-1, keepdims=True)
    counts = distance >= how.diff_min
    scaled = high_product(np.where(counts, distance, 0) << how.shift, how.multiplier)
    power = exp_of_negative(scaled, 5)
    total = np.where(counts, divide(power, _SUM_BITS), 0).sum(axis=-1, keepdims=True)
    zeros = 31 - np.floor(np.log2(total)).astype(np.int64)
    above_one = saturate((total << zeros) - (1 << 31))
    scale = reciprocal_of_one_plus(above_one)
    answer = divide(high_product(scale, power), _SUM_BITS - zeros + 31 - 8)
    return np.where(counts, np.clip(answer - 128, -128, 127), -128)
