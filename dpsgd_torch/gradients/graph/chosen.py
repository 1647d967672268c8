"""Back through rows chosen of a table, the same for every example: position tables, most often.

Autograd would give each example a table of its own; here only what was chosen is kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rules.inputs import signed
from dpsgd_torch.gradients.parts import Part, Tokens, Written


def chosen(node: Any, part: Part, shape: torch.Size) -> Part | None:
    """What a part of the rows is of the table (of ``shape``); None where nothing is chosen.

    The rows are kept as they are, unless the table holds no more than they.
    """
    found = _rows(node, shape)
    if found is None:
        return None
    indices, entries = found
    width = math.prod(shape) // max(1, entries)
    given = part.written()
    values = given.reshape(len(given), indices.numel(), width)
    indices = indices.flatten().to(values.device)
    if 2 * indices.numel() < entries:
        return Tokens(indices.expand(len(values), -1), values, entries).viewed(shape)
    tables, kept = values.new_zeros(len(values), entries, width), indices >= 0
    tables.index_add_(1, indices[kept], values[:, kept])
    return Written(tables.view(len(values), *shape))


def _rows(node: Any, shape: torch.Size) -> tuple[torch.Tensor, int] | None:
    """Which of how many rows, −1 for one that learns nothing; None: not so, or not of rows."""
    name = node.name()
    if name == "EmbeddingBackward0":
        return None if node._saved_scale_grad_by_freq else (_looked_up(node), shape[0])
    if name == "IndexBackward0":
        places = [dim for dim, index in enumerate(node._saved_indices) if index is not None]
        dim = places[0]
        indices = node._saved_indices[dim]
        if len(places) > 1 or indices.dtype not in (torch.int32, torch.int64):
            return None
        indices = indices % shape[dim]
    elif name in ("IndexSelectBackward0", "SliceBackward0", "SelectBackward0"):
        dim = signed(node._saved_dim) % len(shape)
        if name == "IndexSelectBackward0":
            indices = node._saved_index
        else:
            indices = torch.arange(shape[dim])[_range(node)]
    else:
        return None
    return (indices.long(), shape[dim]) if math.prod(shape[:dim]) == 1 else None


def _looked_up(node: Any) -> torch.Tensor:
    indices: torch.Tensor = node._saved_indices.long()
    return indices.masked_fill(indices == signed(node._saved_padding_idx), -1)


def _range(node: Any) -> slice:
    if node.name() == "SelectBackward0":
        index = signed(node._saved_index)
        return slice(index, index + 1 or None)
    return slice(signed(node._saved_start), signed(node._saved_end), node._saved_step)
