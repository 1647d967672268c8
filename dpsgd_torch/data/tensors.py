"""Tensors as bytes, and on a device."""

from __future__ import annotations

import contextlib
import ctypes
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


def raw_pieces(tensor: torch.Tensor, size: int = 1 << 24) -> Iterator[memoryview]:
    """The same bytes some rows at a time, of which a copy is made where one must be.

    >>> [piece.nbytes for piece in raw_pieces(torch.zeros(5, 2), size=16)]
    [16, 16, 8]
    """
    if tensor.ndim == 0 or tensor.numel() == 0:
        yield raw_bytes(tensor)
        return
    rows = max(1, size // (tensor[0].numel() * tensor.element_size()))
    for start in range(0, len(tensor), rows):
        yield raw_bytes(tensor[start : start + rows])


@contextlib.contextmanager
def refusing_device(device: str | torch.device) -> Iterator[None]:
    """Refuse a device that cannot be used, in what is put there inside."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device = {device}: cannot be used ({told(error)}); try 'cpu'") from error


def give_back() -> None:
    """Let the system have what was freed: aligned blocks leave gaps in older glibc."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)
