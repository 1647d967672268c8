"""Whether rows are still the examples in their order: asked again where data may move them.

Where examples are was found with one example several times over. Rows that are packed, routed or
sorted by what the examples hold pass for them in that, and in real batches whose examples have
equal lengths; in another batch they are somewhere else, and no clip would bound an example. So a
pass of another pattern than before, and each in which indices may move rows, is weighed: one more
backward pass, of losses that each have a weight, which must come back at every row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import pad

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.inputs import input_shape, signed
from dpsgd_torch.gradients.graph.rules.sums import parted
from dpsgd_torch.gradients.graph.walk import Meeting
from dpsgd_torch.gradients.parts.pieces import pieces

_ALONG = {  # of one dimension
    *("IndexSelectBackward0", "GatherBackward0", "SortBackward0", "TopkBackward0"),
    *("ScatterBackward0", "ScatterAddBackward0", "ScatterReduceBackward0"),
    *("RollBackward0", "IndexAddBackward0", "IndexCopyBackward0", "IndexReduceBackward0"),
}
_BY_PLACE = {
    *("IndexBackward0", "UnsafeIndexBackward0"),
    *("IndexPutBackward0", "IndexPutImplBackward0", "UnsafeIndexPutBackward0"),
}
_ANYWHERE = {
    *("MaskedSelectBackward0", "MaskedScatterBackward0", "TakeBackward0", "PutBackward0"),
    *("PackPaddedSequenceBackward0", "SegmentReduceBackward0", "SparseAddmmBackward0"),
}
_TABLES = {"EmbeddingBackward0", "EmbeddingBagBackward0"}  # of rows, where examples hold them
_CUTS = {"SplitWithSizesBackward0", "SliceBackward0"}
MOVING = {*_ALONG, *_BY_PLACE, *_ANYWHERE, *_TABLES, *_CUTS, "MmBackward0"}

_BLOCK = 64  # elements whose sum stands for them
_KINDS = 8  # of weights, all powers of 2, by which products and sums round alike
GREATEST = 2.0 ** (_KINDS - 1)  # of these weights


def pattern(nodes: Iterable[tuple[Any, tuple[bool, ...]]], meetings: list[Meeting]) -> int:
    """What a pass is like, however many examples it has: its operations, and its meetings' rows."""
    shapes = []
    for m in meetings:
        shape, rows = list(m.shape()), m.rows
        if rows is not None:
            shape[rows.dim] //= rows.examples
        where = None if rows is None else (rows.dim, rows.outer)
        shapes.append((m.key, tuple(shape), where))
    return hash((tuple(node.name() for node, _ in nodes), tuple(shapes)))


def may_move(nodes: Iterable[tuple[Any, tuple[bool, ...]]], meetings: list[Meeting]) -> bool:
    """Whether a node may move rows from one example's place to another's.

    Args:
        nodes: those above a meeting, and which of their inputs are.
    """
    rows = [m.rows for m in meetings if m.rows is not None]
    dims = {each.dim for each in rows}
    return bool(rows) and any(_moves(*node, dims, rows[0].examples) for node in nodes)


def _moves(node: Any, over: tuple[bool, ...], dims: set[int], examples: int) -> bool:
    name = node.name()
    if name == "MmBackward0":  # a table of who goes where, times the rows
        return 0 in dims and node.next_functions[0][0] is None
    if name in _ANYWHERE:
        return True
    puts = "IndexPut" in name
    if puts and not over[1]:  # what is put in holds no rows
        return False
    child, output = (node, 0) if puts else node.next_functions[0]
    of = child if child is not None else node
    shape = of._input_metadata[output if child is not None else 0].shape
    held = {d for d, size in enumerate(shape) if d in dims or size == examples}
    if name in _TABLES:
        return over[0]
    if name in _CUTS:
        return _cuts_unevenly(node, dims)
    if name == "RollBackward0":
        rank = len(node._input_metadata[0].shape)
        return any(signed(dim) % rank in dims for dim in node._saved_dims or (0,))
    if name in _ALONG:
        return signed(node._saved_dim) % max(1, len(shape)) in held
    place = 0
    for index in node._saved_indices:
        if index is None:
            place += 1
            continue
        mask = index.dtype in (torch.bool, torch.uint8)
        span = index.dim() if mask else 1
        touched = any(d in held for d in range(place, place + span))
        if touched and (mask or not _is_all(index, shape[place])):
            return True
        place += span
    return False


def _cuts_unevenly(node: Any, dims: set[int]) -> bool:
    shape = input_shape(node, 0)
    dim = signed(node._saved_dim) % len(shape)
    if dim not in dims:
        return False
    if node.name() == "SliceBackward0":
        return signed(node._saved_start) != 0 or signed(node._saved_end) < shape[dim]
    return len(set(node._saved_split_sizes)) > 1


def _is_all(index: torch.Tensor, size: int) -> bool:
    """Whether it takes everything in its order: torch.arange, beside other indices."""
    every = torch.arange(size, device=index.device)
    return index.numel() == size and bool(torch.equal(index.flatten().long(), every))


def weights(losses: torch.Tensor) -> torch.Tensor:
    """A power of 2 for each example, another than its neighbours'."""
    return _powers(torch.arange(len(losses), device=losses.device)).to(losses)


def tallies(rows: Rows, delta: torch.Tensor, *, absolute: bool = False) -> torch.Tensor:
    """(examples, blocks): sums over blocks of what belongs to each, every element with a factor.

    They are what is kept of one pass to be compared with another's, in little memory. Factors of
    no pattern: what moves within a block, or against it, does not cancel.
    """
    real = torch.view_as_real(delta.detach().resolve_conj()) if delta.is_complex() else delta
    real = real.float() if _is_half(real) else real
    by_example = parted(real.detach(), rows).movedim(rows.dim + 1, 0)
    size = by_example[:1].numel()
    factors = _factors(size, real.device, real.dtype)
    found = real.new_empty(rows.examples, -(-size // _BLOCK))
    for at in pieces(rows.examples, size, real.device):
        own = by_example[at].flatten(1)
        products = (own.abs() if absolute else own) * factors
        padded = pad(products, (0, found.shape[1] * _BLOCK - size))
        found[at] = padded.view(-1, found.shape[1], _BLOCK).sum(2)
    return found


def refuse_moved(meeting: Meeting, delta: torch.Tensor, weighted: torch.Tensor) -> None:
    """Each row's gradient grows as the loss of the example that it is held to be does.

    Args:
        weighted: ``tallies`` of the gradient of the losses times ``weights``. In half as well a
            pass of powers of 2 rounds alike, but for what leaves the range of normal numbers.

    Raises:
        ModelError: it is another's.
    """
    if meeting.rows is None or not delta.numel():
        return
    own = tallies(meeting.rows, delta).double()
    size = tallies(meeting.rows, delta, absolute=True).double().nan_to_num(0.0, 0.0, 0.0)
    given = weighted.double() / _powers(torch.arange(len(own), device=own.device))[:, None]
    share = (2 if _is_half(delta) else 64) * torch.finfo(delta.dtype).eps
    lost = _BLOCK * GREATEST * 2.0**-24 if delta.dtype is torch.float16 else 0.0  # it has no less
    if bool(((given - own).abs() > share * (size + size.max() / 16) + lost).any()):
        raise out_of_order(meeting)


def _is_half(values: torch.Tensor) -> bool:
    return values.dtype in (torch.float16, torch.bfloat16)


@functools.lru_cache(maxsize=8)
def _factors(count: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    drawn = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    return (0.5 + drawn).to(device, dtype)


def out_of_order(meeting: Meeting) -> ModelError:
    """What to say of rows that are other examples' than their place says."""
    return ModelError(
        f"parameter {meeting.names[0]}: meets a tensor of shape {tuple(meeting.shape())} whose "
        "rows are not the examples in their order (sorted, routed or packed); keep the "
        "examples in one dimension throughout, or freeze it by requires_grad_(False)"
    )


def _powers(examples: torch.Tensor) -> torch.Tensor:
    return torch.exp2((examples % _KINDS).double())
