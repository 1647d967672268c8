"""What users hand over as data, as tensors on one device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dpsgd_torch.errors import DataError, told
from dpsgd_torch.samplers.rows import UnitRows

Pair = tuple[torch.Tensor, torch.Tensor]


def pair_on(device: str | torch.device, data: Any, name: str) -> Pair:
    """Inputs and targets as two tensors on ``device``; numpy arrays and TensorDatasets will do."""
    given = getattr(data, "tensors", data)
    parts = [
        torch.from_numpy(part) if isinstance(part, np.ndarray) else part
        for part in (given if isinstance(given, tuple | list) else ())
    ]
    if len(parts) != 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        raise DataError(
            f"{name} = {type(data).__name__}: must be a pair of tensors, inputs and targets; "
            "join batches with torch.cat"
        )
    if len(parts[0]) != len(parts[1]) or len(parts[0]) == 0:
        shapes = [tuple(part.shape) for part in parts]
        raise DataError(f"{name} = tensors of shape {shapes}: must be of equal length > 0")
    try:
        return parts[0].to(device), parts[1].to(device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device = {device}: cannot be used ({told(error)}); try 'cpu'") from error


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's values byte by byte, whatever their type and layout; numpy knows no bfloat16.

    >>> raw_bytes(torch.tensor([1.0, 2.0]).bfloat16()).nbytes
    4
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def units_of(ids: Any, records: int) -> UnitRows:
    """The rows of each unit, from one id a record."""
    given = torch.as_tensor(ids)
    whole = given.ndim == 1 and not (given.is_floating_point() or given.is_complex())
    if not whole or len(given) != records:
        raise DataError(
            f"units = {given.dtype} of shape {tuple(given.shape)}: must be one whole number for "
            f"each of the {records} records"
        )
    return UnitRows.of(given.cpu().numpy().astype(np.int64))
