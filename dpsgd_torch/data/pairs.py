"""Pairs of inputs and targets: each a tensor, array, column or frame, or a tree of them."""

from __future__ import annotations

from typing import Any

import torch

from dpsgd_torch.data import arrays, arrow, hugging_face, padded, pandas_tables, sparse
from dpsgd_torch.data.base import Data
from dpsgd_torch.data.columns import Column, Leaf, Parts
from dpsgd_torch.data.in_memory import InMemory, refuse_unfit
from dpsgd_torch.data.trees import Tree, leaves, mapped, placed
from dpsgd_torch.errors import DataError

LEAVES: tuple[Leaf, ...] = (  # in this order; None is: not mine
    arrays.leaf,
    pandas_tables.leaf,
    arrow.leaf,
    hugging_face.leaf,
    sparse.leaf,
    padded.leaf,
)


def as_data(given: Any, device: str | torch.device, name: str) -> Data | None:
    """A pair whose leaves are tensors or what can be made one; None where it is no pair.

    Raises:
        DataError: a leaf that holds no numbers, rows that do not match, or more than two parts.
    """
    held = getattr(given, "tensors", given)
    _refuse_more_than_two(held, name)
    if not isinstance(held, tuple | list) or len(held) != 2:
        return None
    if isinstance(held, list) and all(isinstance(part, tuple | list) for part in held):
        return None  # a list of two pairs is what two batches of a DataLoader are
    pandas_tables.refuse_other_order(held, name)
    inputs, targets = (
        mapped(lambda part, where: _read(part, f"{name}: {where}"), tree, placed(tree, part))
        for tree, part in zip(held, ("inputs", "targets"), strict=True)
    )
    if not any(isinstance(leaf, Column) for leaf in leaves((inputs, targets))):
        return InMemory.of((inputs, targets), device, name)
    refuse_unfit(inputs, targets, name)
    return Parts(inputs, targets)


def _read(part: Any, name: str) -> Tree:
    for leaf in LEAVES:
        if (read := leaf(part, name)) is not None:
            return read
    return part


def _refuse_more_than_two(held: Any, name: str) -> None:
    """((x1, x2), y) is meant by (x1, x2, y), but for what one thinks are the targets."""
    if not isinstance(held, tuple | list) or len(held) < 3:
        return
    if all(hasattr(leaf, "shape") or isinstance(leaf, Column) for leaf in leaves(held)):
        if any(isinstance(part, tuple | list) for part in held):
            return  # batches of a DataLoader
        raise DataError(
            f"{name} = {type(held).__name__} of {len(held)}: must be two, inputs and targets; "
            "several inputs are a tuple or dict of their own, as in ((x1, x2), y)"
        )
