"""Convolutions and transposed ones, in one to three dimensions, with groups and dilation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule, node_rule
from dpsgd_torch.gradients.graph.rules.sums import summed_over
from dpsgd_torch.gradients.parts import Part, Written
from dpsgd_torch.gradients.parts.convolution import Convolution
from dpsgd_torch.gradients.parts.patches import Geometry


@node_rule("ConvolutionBackward0", "ConvolutionBackward1")  # the second once traced
def convolution(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """convolution(input, weight, bias): a transposed one's weight has the roles swapped."""
    if 0 in wanted:
        raise NoRule("convolves a parameter with examples; write it as a matrix product")
    if rows.dim:
        raise NoRule(f"examples in dimension {rows.dim} of a convolution; move them to the first")
    found: dict[int, Part] = {}
    back = rows.split(delta.detach(), 1)
    if 2 in wanted:
        found[2] = Written(summed_over(back.flatten(3), (1, 3)))
    if 1 in wanted:
        axes = node._saved_weight.ndim - 2
        geometry = Geometry(
            kernel=tuple(node._saved_weight.shape[2:]),
            stride=_each(node._saved_stride, axes),
            padding=_each(node._saved_padding, axes),
            dilation=_each(node._saved_dilation, axes),
            groups=node._saved_groups,
        )
        x = rows.split(node._saved_input.detach(), 1)
        if node._saved_transposed:
            x, back = back, x
        part = Convolution(x, back, geometry)
        found[1] = Written(part.written()) if part.few() else part
    return found


def _each(values: Sequence[int], axes: int) -> tuple[int, ...]:
    """One for every axis; a single one is saved for all of them by ``padding="valid"``."""
    return tuple(values) * axes if len(values) == 1 else tuple(values)
