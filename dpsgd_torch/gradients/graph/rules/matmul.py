"""Matrix products (nn.Linear, matmul): outer products of what came in and what comes back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule, node_rule
from dpsgd_torch.gradients.parts import Part, Written, outer


@node_rule("MmBackward0")
def mm(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """self @ mat2, where mat2 (features, outputs) is of parameters."""
    if 0 in wanted:
        raise NoRule("multiplies by its parameter from the left; write (x.T @ weight.T).T")
    return {1: _product(node, 1, rows.split(node._saved_self, 1), rows.split(delta, 1))}


@node_rule("AddmmBackward0")
def addmm(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """beta × self + alpha × mat1 @ mat2, where self is a bias (outputs,)."""
    found: dict[int, Part] = {}
    back = rows.split(delta, 1)
    if 0 in wanted:
        summed = back.sum(1) if back.shape[1] > 1 else back[:, 0]  # no copy of δ
        found[0] = Written(summed if node._saved_beta == 1 else summed * node._saved_beta)
    if 1 in wanted:
        raise NoRule("multiplies by its parameter from the left; write (x.T @ weight.T).T")
    if 2 in wanted:
        scaled = back if node._saved_alpha == 1 else back * node._saved_alpha
        found[2] = _product(node, 2, rows.split(node._saved_mat1, 1), scaled)
    return found


def _product(node: Any, place: int, a: torch.Tensor, b: torch.Tensor) -> Part:
    """In memory the way round in which the parameter is, where it was turned to be multiplied."""
    if node.next_functions[place][0].name() == "TBackward0":
        return outer(b, a).transposed()
    return outer(a, b)
