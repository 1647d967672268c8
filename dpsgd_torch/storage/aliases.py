"""Tied weights in a .safetensors file: a tensor of two names is stored once, the other recorded."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import torch

KEY = "aliases"  # in the file's metadata


def place(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that are the same values in the same memory; an empty one has none."""
    if not tensor.numel():
        return object()
    where = (tensor.device, tensor.data_ptr())
    return (*where, tensor.dtype, tuple(tensor.shape), tensor.stride())


def stored_once(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors that differ, and for each further name of one the name it is stored under.

    >>> tied = torch.ones(2)
    >>> kept, aliases = stored_once({"head": tied, "words": tied, "bias": torch.ones(2)})
    >>> sorted(kept), aliases
    (['bias', 'head'], {'words': 'head'})
    """
    first: dict[Hashable, str] = {}
    names = {name: first.setdefault(place(tensor), name) for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in tensors.items() if names[name] == name}
    return kept, {name: stored for name, stored in names.items() if name != stored}


def tied(
    tensors: Mapping[str, torch.Tensor], aliases: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """The tensors under all their names.

    Raises:
        ValueError: an alias of what is not there.
    """
    if lost := sorted(set(aliases.values()) - set(tensors)):
        raise ValueError(f"it holds no {lost[0]}")
    return {**tensors, **{name: tensors[stored] for name, stored in aliases.items()}}


def metadata(content: bytes) -> dict[str, Any]:
    """What a file says beside its tensors; its aliases are JSON under ``KEY``."""
    size = int.from_bytes(content[:8], "little")
    said: dict[str, Any] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    return said


def aliases_in(content: bytes) -> dict[str, str]:
    """The aliases that a file records, without a digest."""
    return dict(json.loads(metadata(content).get(KEY, "{}")))
