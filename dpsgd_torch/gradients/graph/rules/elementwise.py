"""Elementwise arithmetic: what was broadcast is summed back, each example for itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import node_rule, refuse_within_backward
from dpsgd_torch.gradients.graph.rules.inputs import fitted, input_shape
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.graph.rules.sums import summed_to
from dpsgd_torch.gradients.parts import Part, Written


@node_rule(
    *("RsubBackward0", "DivBackward0", "PowBackward1"),
    *("MaximumBackward0", "MinimumBackward0", "FmaxBackward0", "FminBackward0", "WhereBackward0"),
    *("LerpBackward0", "LerpBackward1", "AddcmulBackward0", "AddcdivBackward0"),
    *("PreluKernelBackward0", "Atan2Backward0", "HypotBackward0", "RemainderBackward1"),
    *("LogaddexpBackward0", "Logaddexp2Backward0", "XlogyBackward0", "XlogyBackward1"),
    *("ComplexBackward0", "PolarBackward0", "CopysignBackward0", "MaskedFillBackward0"),
    "torch::autograd::CopyBackwards",
)
def broadcast(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """Their backward leaves the sum over broadcast dimensions to the engine: taken here."""
    refuse_within_backward()
    whole = node(delta)
    gradients = whole if isinstance(whole, tuple) else (whole,)
    found: dict[int, Part] = {}
    for place in wanted:
        gradient, shape = gradients[place], input_shape(node, place)
        if gradient is None or gradient.shape != delta.shape:  # summed already, examples and all
            found |= one_at_a_time(node, delta, [place], rows)
        else:
            found[place] = Written(fitted(summed_to(gradient, shape, rows), node, place))
    return found


@node_rule("AddBackward0", "SubBackward0")
def add(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """self ± alpha × other."""
    sign = 1 if node.name() == "AddBackward0" else -1
    found: dict[int, Part] = {}
    for place in wanted:
        scale = sign * node._saved_alpha if place else 1
        summed = summed_to(delta, input_shape(node, place), rows)
        found[place] = Written(fitted(summed if scale == 1 else summed * scale, node, place))
    return found


@node_rule("MulBackward0")
def mul(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """self × other: each has the other as its factor."""
    found: dict[int, Part] = {}
    for place in wanted:
        factor = node._saved_self if place else node._saved_other
        product = delta * (factor.conj() if factor.is_complex() else factor)
        summed = summed_to(product, input_shape(node, place), rows)
        found[place] = Written(fitted(summed, node, place))
    return found


@node_rule("MaskedFillBackward1")
def masked_fill(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """A value of parameters where a mask says so."""
    found: dict[int, Part] = {}
    for place in wanted:
        mask = node._saved_mask
        gradient = delta.masked_fill(mask if place == 0 else ~mask, 0.0)
        summed = summed_to(gradient, input_shape(node, place), rows)
        found[place] = Written(fitted(summed, node, place))
    return found
