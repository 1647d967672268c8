"""WeightNormLinear: with u = x · v/‖v‖, ∂g = δ u and ∂v = (g/‖v‖) (δ ⊗ x − ∂g v/‖v‖)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import node_rule
from dpsgd_torch.gradients.graph.rules.sums import split
from dpsgd_torch.gradients.parts import Outer, Part, Projected, Written


@node_rule("WeightNormProductBackward")
def weight_norm(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """layers.WeightNormProduct [Salimans, Kingma 2016, Eq. 3]."""
    x, v, g, u, direction = node.saved_tensors
    node.told.append(True)
    leading = delta.dim() - 1
    back, seen = split(rows, delta, leading), split(rows, u, leading)
    found: dict[int, Part] = {}
    if 1 in wanted:
        scaled = back * (g / v.norm(dim=1))
        found[1] = Projected(Outer(scaled, split(rows, x, leading)), seen, direction)
    if 2 in wanted:
        found[2] = Written((back * seen).sum(1))
    if 3 in wanted:
        found[3] = Written(back.sum(1) if back.shape[1] > 1 else back[:, 0])
    return found
