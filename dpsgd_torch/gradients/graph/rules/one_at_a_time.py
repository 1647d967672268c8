"""Any node whatsoever: its own backward, fed with one example's gradient at a time.

A node keeps examples apart where the model does (what mixes them is found beforehand), and its
backward is linear in what it is given. Slow, as many calls as examples; for nodes without a rule.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import Entangled, NoRule, refuse_within_backward
from dpsgd_torch.gradients.graph.rules.inputs import input_shape
from dpsgd_torch.gradients.graph.rules.sums import parted
from dpsgd_torch.gradients.parts import Part, Written


def one_at_a_time(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """The rule for a node of any name.

    Raises:
        NoRule: its backward cannot be called again.
        Entangled: 0 × ∞, of a value that one example had saved, is in everyone's gradient.
    """
    refuse_within_backward()
    places = sorted(wanted)
    apart = parted(delta, rows)
    kept: list[list[torch.Tensor]] = [[] for _ in places]
    for example in range(rows.examples):
        alone = torch.zeros_like(apart)
        alone.select(rows.dim + 1, example).copy_(apart.select(rows.dim + 1, example))
        for gradients, gradient in zip(
            kept, _called(node, alone.view_as(delta), places), strict=True
        ):
            gradients.append(gradient)
    stacked = [torch.stack(gradients) for gradients in kept]
    if not all(_is_finite(each) for each in stacked):
        of_nothing = _called(node, torch.zeros_like(delta), places)
        if not all(_is_finite(each) for each in of_nothing):
            raise Entangled
    return {place: Written(each) for place, each in zip(places, stacked, strict=True)}


def _is_finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _called(node: Any, delta: torch.Tensor, places: list[int]) -> list[torch.Tensor]:
    """Through autograd's engine, which sums over broadcast dimensions and casts as ever."""
    edges = [GradientEdge(*node.next_functions[place]) for place in places]
    try:
        found = torch.autograd.grad(
            (GradientEdge(node, 0),), edges, (delta,), retain_graph=True, allow_unused=True
        )
    except RuntimeError as failed:
        first = str(failed).partition("\n")[0]
        raise NoRule(f"its backward cannot be called an example at a time ({first})") from failed
    return [
        delta.new_zeros(input_shape(node, place)) if gradient is None else _dense(gradient)
        for gradient, place in zip(found, places, strict=True)
    ]


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient
