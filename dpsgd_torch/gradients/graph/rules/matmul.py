"""Matrix products (nn.Linear, matmul): outer products of what came in and what comes back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import node_rule
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.graph.rules.sums import summed_over
from dpsgd_torch.gradients.parts import Part, Written, outer


@node_rule("MmBackward0")
def mm(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """self @ mat2, where mat2 (features, outputs) is of parameters."""
    if 0 in wanted or rows.dim:
        return _from_the_left(node, delta, wanted, rows, 0)
    return {1: _product(node, 1, rows.split(node._saved_self, 1), rows.split(delta, 1))}


@node_rule("AddmmBackward0")
def addmm(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """beta × self + alpha × mat1 @ mat2, where self is a bias (outputs,)."""
    found: dict[int, Part] = {}
    if 1 in wanted or rows.dim:
        return _from_the_left(node, delta, wanted, rows, 1)
    back = rows.split(delta, 1)
    if 0 in wanted:
        summed = summed_over(back, 1) if back.shape[1] > 1 else back[:, 0]  # no copy of δ
        found[0] = Written(summed if node._saved_beta == 1 else summed * node._saved_beta)
    if 2 in wanted:
        scaled = back if node._saved_alpha == 1 else back * node._saved_alpha
        found[2] = _product(node, 2, rows.split(node._saved_mat1, 1), scaled)
    return found


def _from_the_left(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows, place: int
) -> dict[int, Part]:
    """A parameter times the examples, which are columns; whatever else, one at a time."""
    if set(wanted) != {place} or rows.dim != 1:
        return one_at_a_time(node, delta, wanted, rows)
    turned = Rows(rows.examples, 0, rows.outer)
    scale = node._saved_alpha if place else 1
    back = delta if scale == 1 else delta * scale
    return {place: outer(turned.split(back.T, 1), turned.split(node._saved_mat2.T, 1))}


def _product(node: Any, place: int, a: torch.Tensor, b: torch.Tensor) -> Part:
    """In memory the way round in which the parameter is, where it was turned to be multiplied."""
    if node.next_functions[place][0].name() == "TBackward0":
        return outer(b, a).transposed()
    return outer(a, b)
