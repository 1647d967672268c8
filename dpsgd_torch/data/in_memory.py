"""In-memory data: inputs and targets on one device, tensors or trees of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.arrays import numbers
from dpsgd_torch.data.base import ROWS, Batch, Data, Piece, Schema, tree_bytes
from dpsgd_torch.data.columns import Column
from dpsgd_torch.data.tensors import refusing_device
from dpsgd_torch.data.trees import Tree, first, length, mapped, named, taken
from dpsgd_torch.data.units import Flags, Indices
from dpsgd_torch.errors import DataError


class InMemory(Data):
    """A pair of tensors, or of trees of them, whose first dimension is the records.

    >>> data = InMemory(torch.eye(3), torch.tensor([7, 8, 9]))
    >>> data.take(np.array([2, 0]))[1]
    tensor([9, 7])
    """

    def __init__(self, inputs: Tree, targets: Tree) -> None:
        self.inputs, self.targets = inputs, targets

    @classmethod
    def of(cls, given: Any, device: str | torch.device, name: str) -> InMemory:
        """A pair on ``device``; numpy arrays and TensorDatasets will do.

        Raises:
            DataError: something else, or parts of unequal length.
        """
        held = getattr(given, "tensors", given)
        pair = isinstance(held, tuple | list) and len(held) == 2
        if not pair or (isinstance(held, list) and all(isinstance(p, tuple | list) for p in held)):
            # a list of two pairs is what two batches of a DataLoader are
            raise DataError(
                f"{name} = {type(given).__name__}: must be a pair of tensors, inputs and targets "
                "(or a tuple, list or dict of tensors in place of one); join batches with "
                "torch.cat, or write a kind of dpsgd_torch.data.base.Data"
            )
        inputs, targets = (mapped(lambda leaf: _from_numpy(leaf, name), part) for part in held)
        refuse_unfit(inputs, targets, name)
        return cls(inputs, targets).on(device)

    def on(self, device: str | torch.device) -> InMemory:
        with refusing_device(device):
            return InMemory(*(mapped(lambda t: t.to(device), part) for part in self.in_memory()))

    def __len__(self) -> int:
        return length(self.inputs)

    def __getitem__(self, part: int) -> Tree:
        return self.in_memory()[part]  # inputs, targets = trainer.data, as when it was a pair

    def take(self, indices: Indices) -> Batch:
        index = torch.from_numpy(indices).to(first(self.inputs).device)
        inputs, targets = (
            mapped(lambda tensor: tensor.index_select(0, index), part) for part in self.in_memory()
        )
        return inputs, targets

    @property
    def schema(self) -> Schema:
        return Schema.of(self.in_memory())

    def fingerprint(self) -> Iterator[Piece]:
        for part in self.in_memory():
            yield from tree_bytes(part)

    @property
    def told_whole(self) -> bool:
        return True

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        size = size or ROWS
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield taken(self.inputs, rows), taken(self.targets, rows)

    def rows(self, where: Indices | Flags) -> InMemory:
        return InMemory(*self.take(np.arange(len(self))[where]))

    def in_memory(self) -> Batch:
        return self.inputs, self.targets


def _from_numpy(leaf: Any, name: str) -> Any:
    return numbers(leaf, name) if isinstance(leaf, np.ndarray) else leaf


def refuse_unfit(inputs: Tree, targets: Tree, name: str) -> None:
    """Refuse what is no tensor, and tensors of other lengths than the first."""
    found = [*named(inputs, "inputs"), *named(targets, "targets")]
    for leaf, tensor in found:
        if isinstance(tensor, Column):
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0:
            given = "one number" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise DataError(
                f"{name}: {leaf} = {given}: must be a tensor with a row for each record; "
                "torch.as_tensor makes one of a list, and what is None is left out"
            )
    for part, tree in (("inputs", inputs), ("targets", targets)):
        refuse_odd_tree(tree, f"{name}: {part}")
    whole, rows = found[0][0], len(found[0][1])
    pair = isinstance(inputs, torch.Tensor) and isinstance(targets, torch.Tensor)
    if pair and (rows != len(targets) or rows == 0):
        shapes = [tuple(tensor.shape) for _, tensor in found]
        raise DataError(f"{name} = tensors of shape {shapes}: must be of equal length > 0")
    for leaf, tensor in found:
        if len(tensor) != rows:
            raise DataError(
                f"{name}: {leaf} has {len(tensor)} rows where {whole} has {rows}; every tensor "
                "must have a row for each record"
            )
    if rows == 0:
        raise DataError(f"{name}: {whole} has 0 rows: must be > 0; hand over at least one record")


def refuse_odd_tree(tree: Tree, name: str) -> None:
    """Refuse a tuple, list or dict of nothing, and a key that no argument can be called."""
    if not isinstance(tree, tuple | list | Mapping):
        return
    if not tree:
        raise DataError(f"{name} = {type(tree).__name__}: is empty; must hold a tensor at least")
    for key, part in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        if isinstance(tree, Mapping) and not isinstance(key, str):
            raise DataError(
                f"{name} = dict with the key {key!r}: must be text, the name of an argument of the "
                "model's forward"
            )
        refuse_odd_tree(part, f"{name}.{key}")
