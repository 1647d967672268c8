"""Tensors that a forward pass leaves in a layer's attributes: seen by no file, but by the next."""

from __future__ import annotations

import torch
from torch import nn

Held = dict[tuple[nn.Module, str], torch.Tensor]

_MUCH = 1e4  # times what two batches leave differs by: a slow average shows at once


def held(model: nn.Module) -> Held:
    """The tensors of numbers among the attributes of a model's layers, besides its state."""
    return {
        (module, name): value
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def put(tensors: Held) -> None:
    """Give the layers these back."""
    for (module, name), value in tensors.items():
        setattr(module, name, value)


def exaggerated(one: Held, other: Held) -> Held:
    """What differs between the two, and lies the other way by far; nothing where they agree."""
    found: Held = {}
    for key, a in one.items():
        b = other.get(key)
        if b is None or a.shape != b.shape or a.dtype != b.dtype or torch.equal(a, b):
            continue
        found[key] = a.detach() + _MUCH * (a - b).detach()
    return found
