"""Tensors as bytes."""

from __future__ import annotations

import torch


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's values byte by byte, whatever their type and layout; numpy knows no bfloat16.

    >>> raw_bytes(torch.tensor([1.0, 2.0]).bfloat16()).nbytes
    4
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
