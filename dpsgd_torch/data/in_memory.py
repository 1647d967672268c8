"""In-memory data: two tensors on one device, inputs and targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dpsgd_torch.data.base import ROWS, Batch, Data, Piece, Schema, Tensor
from dpsgd_torch.data.tensors import raw_bytes, refusing_device
from dpsgd_torch.data.units import Flags, Indices
from dpsgd_torch.errors import DataError


class InMemory(Data):
    """A pair of tensors whose first dimension is the records.

    >>> data = InMemory(torch.eye(3), torch.tensor([7, 8, 9]))
    >>> data.take(np.array([2, 0]))[1]
    tensor([9, 7])
    """

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    @classmethod
    def of(cls, given: Any, device: str | torch.device, name: str) -> InMemory:
        """A pair on ``device``; numpy arrays and TensorDatasets will do.

        Raises:
            DataError: something else, or parts of unequal length.
        """
        held = getattr(given, "tensors", given)
        parts = [
            torch.from_numpy(part) if isinstance(part, np.ndarray) else part
            for part in (held if isinstance(held, tuple | list) else ())
        ]
        if len(parts) != 2 or not all(isinstance(part, torch.Tensor) for part in parts):
            raise DataError(
                f"{name} = {type(given).__name__}: must be a pair of tensors, inputs and targets; "
                "join batches with torch.cat, or write a kind of dpsgd_torch.data.base.Data"
            )
        if len(parts[0]) != len(parts[1]) or len(parts[0]) == 0:
            shapes = [tuple(part.shape) for part in parts]
            raise DataError(f"{name} = tensors of shape {shapes}: must be of equal length > 0")
        return cls(*parts).on(device)

    def on(self, device: str | torch.device) -> InMemory:
        with refusing_device(device):
            return InMemory(self.inputs.to(device), self.targets.to(device))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, part: int) -> torch.Tensor:
        return self.in_memory()[part]  # inputs, targets = trainer.data, as when it was a pair

    def take(self, indices: Indices) -> Batch:
        index = torch.from_numpy(indices).to(self.inputs.device)
        return self.inputs.index_select(0, index), self.targets.index_select(0, index)

    @property
    def schema(self) -> Schema:
        return Schema(Tensor.of(self.inputs), Tensor.of(self.targets))

    def fingerprint(self) -> Iterator[Piece]:
        yield raw_bytes(self.inputs)
        yield raw_bytes(self.targets)

    def batches(self, size: int = ROWS) -> Iterator[Batch]:
        return zip(self.inputs.split(size), self.targets.split(size), strict=True)

    def rows(self, where: Indices | Flags) -> InMemory:
        return InMemory(*self.take(np.arange(len(self))[where]))

    def in_memory(self) -> Batch:
        return self.inputs, self.targets
