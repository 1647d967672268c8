"""Values that are looked up, written in, repeated or set side by side: no arithmetic."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import node_rule, refuse_within_backward
from dpsgd_torch.gradients.graph.rules.inputs import fitted, input_shape
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.graph.rules.sums import (
    gathered,
    owners,
    parted,
    places,
    split,
    summed_over,
    summed_to,
)
from dpsgd_torch.gradients.parts import Part, Tokens, Written


@node_rule("IndexBackward0", "IndexSelectBackward0", "GatherBackward0", "TakeBackward0")
def looked_up(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """parameter[indices], where the indices are the examples'."""
    shape = input_shape(node, 0)
    entry = _first_dimension(node, len(shape))
    if entry is not None and 0 <= rows.dim < entry.dim():
        indices = split(rows, entry % shape[0], entry.dim())  # from the end: below 0
        back = split(rows, delta, entry.dim()).reshape(*indices.shape, -1)
        return {0: Tokens(indices, back, shape[0]).viewed(shape)}
    place = _taken(node, places(shape, delta.device))
    whose = owners(delta.shape, rows, delta.device)
    return {0: Written(gathered(delta, whose, place.expand(delta.shape), shape, rows.examples))}


def _first_dimension(node: Any, dims: int) -> torch.Tensor | None:
    """The indices, where they choose along the first dimension alone."""
    if node.name() == "IndexSelectBackward0":
        return node._saved_index if node._saved_dim in (0, (1 << 64) - dims) else None
    if node.name() != "IndexBackward0":
        return None
    first, *others = node._saved_indices
    whole = all(index is None for index in others)
    if first is None or not whole or first.dtype in (torch.bool, torch.uint8):
        return None
    return first.long()


def _taken(node: Any, place: torch.Tensor) -> torch.Tensor:
    """The same look-up, of places."""
    if node.name() == "IndexBackward0":
        return torch.ops.aten.index(place, list(node._saved_indices))
    if node.name() == "TakeBackward0":
        return place.take(node._saved_index)
    dim = node._saved_dim
    dim = dim - (1 << 64) if dim >= 1 << 63 else dim
    if node.name() == "GatherBackward0":
        return place.gather(dim, node._saved_index)
    return place.index_select(dim, node._saved_index)


@node_rule("IndexPutBackward0")
def written_in(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """examples[indices] = parameter: a mask token, most often."""
    if 0 in wanted:
        return one_at_a_time(node, delta, wanted, rows)
    shape, indices = input_shape(node, 1), list(node._saved_indices)
    back = torch.ops.aten.index(delta, indices)
    whose = torch.ops.aten.index(owners(delta.shape, rows, delta.device), indices)
    place = places(shape, delta.device).expand(back.shape)
    return {1: Written(gathered(back, whose, place, shape, rows.examples))}


@node_rule("ExpandBackward0")
def expanded(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """One value for many, the examples among them: class tokens, learned queries."""
    return {0: Written(summed_to(delta, input_shape(node, 0), rows))}


@node_rule("RepeatBackward0")
def repeated(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """Copies one after another along each dimension, every example with copies of its own."""
    shape = input_shape(node, 0)
    padded = (1,) * (delta.dim() - len(shape)) + tuple(shape)
    parts = parted(delta, rows).movedim(rows.dim + 1, 0).flatten(rows.dim + 1, rows.dim + 2)
    if delta.shape[rows.dim] // (rows.outer * rows.examples) % padded[rows.dim]:
        return one_at_a_time(node, delta, wanted, rows)
    copies = [n // size for n, size in zip(parts.shape[1:], padded, strict=True)]
    apart = [n for pair in zip(copies, padded, strict=True) for n in pair]
    summed = summed_over(
        parts.reshape(rows.examples, *apart), [1 + 2 * d for d in range(len(padded))]
    )
    return {0: Written(summed.reshape(rows.examples, *shape))}


@node_rule("CatBackward0", "StackBackward0")
def side_by_side(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """Tensors one after another; one of parameters has a slice for each example."""
    refuse_within_backward()
    whole = node(delta)
    found: dict[int, Part] = {}
    for place in wanted:
        shape, gradient = input_shape(node, place), whole[place]
        same = gradient.dim() == delta.dim() and shape[rows.dim] == delta.shape[rows.dim]
        if not same:
            found |= one_at_a_time(node, delta, [place], rows)
        else:
            found[place] = Written(fitted(summed_to(gradient, shape, rows), node, place))
    return found
