"""Tables that examples look rows up in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule, node_rule
from dpsgd_torch.gradients.graph.rules.inputs import signed
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time
from dpsgd_torch.gradients.graph.rules.sums import owners, split
from dpsgd_torch.gradients.parts import Part, Tokens
from dpsgd_torch.gradients.parts.pieces import real

_SUM, _MEAN = 0, 1


@node_rule("EmbeddingBackward0")
def embedding(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """A row of the table for each index; the padding index learns nothing."""
    _refuse_frequency(node)
    indices = node._saved_indices.long()
    if signed(node._saved_padding_idx) >= 0:
        indices = indices.masked_fill(indices == signed(node._saved_padding_idx), -1)
    entries = node._saved_weight_sym_argsize_0
    back = split(rows, delta, delta.dim() - 1)
    return {0: Tokens(split(rows, indices, indices.dim()), back, entries)}


@node_rule("EmbeddingBagBackward0")
def embedding_bag(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """Sums, means or greatest values of the rows looked up for each bag."""
    _refuse_frequency(node)
    found: dict[int, Part] = {}
    if 1 in wanted:
        found |= one_at_a_time(node, delta, [1], rows)
    if 0 in wanted:
        if rows.dim:
            raise NoRule("its examples are not in the first dimension; put them there")
        found[0] = _bagged(node, delta, rows)
    return found


def _bagged(node: Any, delta: torch.Tensor, rows: Rows) -> Part:
    indices, starts = node._saved_indices.long(), node._saved_offsets.long()[: len(delta)]
    entries = node._saved_weight_sym_argsize_0
    places = torch.arange(len(indices), device=indices.device)
    bags = torch.searchsorted(starts, places, right=True) - 1
    counted = indices != signed(node._saved_padding_idx)
    if node._saved_mode in (_SUM, _MEAN):
        back = real(delta)[bags]
        if node._saved_per_sample_weights is not None:
            back = back * node._saved_per_sample_weights[:, None]
        if node._saved_mode == _MEAN:
            sizes = torch.zeros(len(delta), device=delta.device, dtype=back.dtype)
            sizes.index_add_(0, bags, counted.to(back.dtype))
            back = back / sizes.clamp(min=1)[bags, None]
        indices = indices.masked_fill(~counted, -1)
    else:  # a row that stands twice in a bag is the greatest once
        pairs = (bags * entries + indices)[counted].unique()
        bags, indices = pairs // entries, pairs % entries
        back = real(delta)[bags] * (node._saved_result3[bags] == indices[:, None])
    owner = owners(delta.shape[:1], Rows(rows.examples, 0, rows.outer), delta.device)[bags]
    return Tokens(*_side_by_side(indices, back, owner, rows.examples), entries)


def _side_by_side(
    indices: torch.Tensor, back: torch.Tensor, owner: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, most) and (count, most, d): each owner's tokens in a row, index −1 after them."""
    owner, order = owner.sort(stable=True)
    sizes = torch.bincount(owner, minlength=count)
    place = torch.arange(len(owner), device=owner.device) - (sizes.cumsum(0) - sizes)[owner]
    most = int(sizes.max())
    tokens = indices.new_full((count, most), -1)
    tokens[owner, place] = indices[order]
    deltas = back.new_zeros(count, most, back.shape[1])
    deltas[owner, place] = back[order]
    return tokens, deltas


def _refuse_frequency(node: Any) -> None:
    if node._saved_scale_grad_by_freq:
        raise NoRule("scale_grad_by_freq divides by counts over the whole batch; leave it out")
