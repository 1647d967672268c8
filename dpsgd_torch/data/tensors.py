"""Tensors as bytes, and on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from dpsgd_torch.errors import DataError, told


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's values byte by byte, whatever their type and layout; numpy knows no bfloat16.

    >>> raw_bytes(torch.tensor([1.0, 2.0]).bfloat16()).nbytes
    4
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


@contextlib.contextmanager
def refusing_device(device: str | torch.device) -> Iterator[None]:
    """Refuse a device that cannot be used, in what is put there inside."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device = {device}: cannot be used ({told(error)}); try 'cpu'") from error
