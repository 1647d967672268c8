"""What the graph knows of a node's inputs: shapes and types, whatever became of the values."""

from __future__ import annotations

from typing import Any

import torch


def input_shape(node: Any, place: int) -> torch.Size:
    """The shape of what the forward pass put in at ``node.next_functions[place]``."""
    return torch.Size(_metadata(node, place).shape)


def fitted(gradient: torch.Tensor, node: Any, place: int) -> torch.Tensor:
    """In the input's type: a real input takes the real part, as in autograd's own engine.

    What was added up for an input in half precision stays float32: it is rounded no further.
    """
    dtype = _metadata(node, place).dtype
    if gradient.is_complex() and not dtype.is_complex:
        gradient = gradient.real
    return gradient if dtype in (torch.float16, torch.bfloat16) else gradient.to(dtype)


def signed(number: int) -> int:
    """A saved whole number, which the graph shows without its sign."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _metadata(node: Any, place: int) -> Any:
    child, output = node.next_functions[place]
    return child._input_metadata[output]
