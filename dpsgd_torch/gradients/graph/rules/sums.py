"""Sums over everything but the examples: what broadcasting, looking up and writing to turn into."""

from __future__ import annotations

import math

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule
from dpsgd_torch.gradients.parts.pieces import real


def split(rows: Rows, tensor: torch.Tensor, leading: int) -> torch.Tensor:
    """``Rows.split``, where examples in another dimension mean that there is no rule."""
    try:
        return rows.split(tensor, leading)
    except ValueError as misplaced:
        raise NoRule(str(misplaced)) from misplaced


def summed_over(
    values: torch.Tensor, dims: int | list[int] | tuple[int, ...], *, keepdim: bool = False
) -> torch.Tensor:
    """A sum that is float32 where its terms are half: what was rounded once stays at that."""
    half = values.dtype in (torch.float16, torch.bfloat16)
    return values.sum(dims, keepdim=keepdim, dtype=torch.float32 if half else None)


def summed_to(gradient: torch.Tensor, shape: torch.Size, rows: Rows) -> torch.Tensor:
    """(examples, *shape): the gradient of what was broadcast from ``shape``, by example.

    >>> summed_to(torch.ones(2, 3, 4), torch.Size((4,)), Rows(2))
    tensor([[3., 3., 3., 3.],
            [3., 3., 3., 3.]])
    """
    padded = (1,) * (gradient.dim() - len(shape)) + tuple(shape)
    if rows.examples == 1:
        return real(gradient).sum_to_size(shape)[None]
    others = [d for d, size in enumerate(padded) if size == 1 and d != rows.dim]
    if padded[rows.dim] != 1:  # a value of its own for every example
        kept = summed_over(gradient, others, keepdim=True) if others else gradient
        return _apart(kept, rows).reshape(rows.examples, *shape)
    split_up = parted(gradient, rows)
    over = [d if d < rows.dim else d + 2 for d in others] + [rows.dim, rows.dim + 2]
    over = [d for d in over if split_up.shape[d] > 1]  # a sum over one is a copy
    summed = summed_over(split_up, over, keepdim=True) if over else split_up
    return summed.movedim(rows.dim + 1, 0).reshape(rows.examples, *shape)


def owners(shape: torch.Size, rows: Rows, device: torch.device) -> torch.Tensor:
    """Whose each element of a tensor is: the example's number, seen at the tensor's shape."""
    inner = shape[rows.dim] // (rows.outer * rows.examples)
    each = torch.arange(rows.examples, device=device).repeat_interleave(inner).repeat(rows.outer)
    return each.view(-1, *(1,) * (len(shape) - rows.dim - 1)).expand(shape)


def gathered(
    values: torch.Tensor, owner: torch.Tensor, place: torch.Tensor, shape: torch.Size, count: int
) -> torch.Tensor:
    """(count, *shape): each value added at its place (counted along ``shape``) of its owner."""
    size = math.prod(shape)
    sums = real(values).new_zeros(count * size)
    sums.index_add_(0, (owner * size + place).flatten(), real(values).flatten())
    return sums.view(count, *shape)


def places(shape: torch.Size, device: torch.device) -> torch.Tensor:
    """Each element's place along the flattened tensor, in the tensor's shape."""
    return torch.arange(math.prod(shape), device=device).view(shape)


def parted(gradient: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The examples' dimension as three: (outer, examples, inner)."""
    if gradient.shape[rows.dim] % (rows.outer * rows.examples):
        raise NoRule(f"examples are not in dimension {rows.dim} of {tuple(gradient.shape)}")
    return gradient.unflatten(rows.dim, (rows.outer, rows.examples, -1))


def _apart(gradient: torch.Tensor, rows: Rows) -> torch.Tensor:
    """(examples, *its shape): every example's own share, and zeros."""
    split_up = parted(gradient, rows)
    alone = split_up.new_zeros(rows.examples, *split_up.shape)
    alone.diagonal(dim1=0, dim2=rows.dim + 2).copy_(split_up.movedim(rows.dim + 1, -1))
    return alone
