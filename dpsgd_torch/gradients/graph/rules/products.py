"""Products of many matrices at once, and nn.Bilinear: what came in against what comes back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import node_rule
from dpsgd_torch.gradients.graph.rules.inputs import fitted, input_shape
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.graph.rules.sums import parted, split, summed_over, summed_to
from dpsgd_torch.gradients.parts import Outer, Part, Written
from dpsgd_torch.gradients.parts.pieces import real


@node_rule("BmmBackward0")
def bmm(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """self[h] @ mat2[h]: einsum and heads, the examples among the rows or the columns."""
    left = node._saved_self if 1 in wanted else None
    right = node._saved_mat2 if 0 in wanted else None
    return _factors(node, delta, rows, {0: right, 1: left}, 0, 1)


@node_rule("BaddbmmBackward0")
def baddbmm(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """beta × self + alpha × batch1 @ batch2, where self may be broadcast."""
    found: dict[int, Part] = {}
    if 0 in wanted:
        summed = summed_to(delta * node._saved_beta, input_shape(node, 0), rows)
        found[0] = Written(fitted(summed, node, 0))
    left = node._saved_batch1 if 2 in wanted else None
    right = node._saved_batch2 if 1 in wanted else None
    scaled = delta if node._saved_alpha == 1 else delta * node._saved_alpha
    return found | _factors(node, scaled, rows, {1: right, 2: left}, 1, 2, delta)


@node_rule("MvBackward0")
def mv(node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows) -> dict[int, Part]:
    """self @ vec, where vec is of parameters."""
    if 0 in wanted:
        return one_at_a_time(node, delta, wanted, rows)
    seen = node._saved_self.conj() * delta[:, None]
    return {1: Written(fitted(summed_over(split(rows, seen, 1), 1), node, 1))}


@node_rule("TrilinearBackward0")
def bilinear(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """nn.Bilinear: y[n, o] = Σ x1[n, i] weight[o, i, j] x2[n, j]."""
    expanded = (node._saved_expand1, node._saved_expand2, node._saved_expand3)
    as_layer = expanded == ((1, 3), (0,), (1, 2)) and node._saved_sumdim == (2, 3)
    if not as_layer or set(wanted) != {1}:
        return one_at_a_time(node, delta, wanted, rows)
    pairs = (node._saved_i1[..., None] * node._saved_i3[:, None]).flatten(1)
    outer = Outer(split(rows, delta, 1), split(rows, pairs, 1))
    return {1: outer.viewed(input_shape(node, 1))}


def _factors(
    node: Any,
    delta: torch.Tensor,
    rows: Rows,
    others: dict[int, torch.Tensor | None],
    first: int,
    second: int,
    given: torch.Tensor | None = None,
) -> dict[int, Part]:
    """Of y[h] = first[h] @ second[h]: what each wanted factor's other factor makes of δ."""
    found: dict[int, Part] = {}
    for place, other in others.items():
        if other is None:
            continue
        if place == second and rows.dim == 1:
            found[place] = _heads(other.conj(), delta, rows, input_shape(node, place))
        elif place == first and rows.dim == 2:
            flipped = Rows(rows.examples, 1, rows.outer)
            found[place] = _heads(delta.mT, other.conj().mT, flipped, input_shape(node, place))
        else:
            found |= one_at_a_time(node, delta if given is None else given, [place], rows)
    return found


def _heads(a: torch.Tensor, b: torch.Tensor, rows: Rows, shape: torch.Size) -> Part:
    """Σ over an example's steps of a[h, n] ⊗ b[h, n]."""
    flat = Rows(rows.examples, 0, rows.outer)
    if len(a) == 1:
        return Outer(split(flat, a[0], 1), split(flat, b[0], 1)).viewed(shape)
    left, right = (real(parted(x, rows)).movedim(2, 0).flatten(2, 3) for x in (a, b))
    return Written(left.mT @ right)
