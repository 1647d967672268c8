"""What nodes had saved, read while a backward pass may read it too: activation checkpointing.

A region under ``torch.utils.checkpoint`` is run again when what it saved is asked for, and gives
each tensor once a pass. What rules read is a group of its own there: one more run of a region, and
not one for every tensor.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch.utils import checkpoint

_Group = getattr(checkpoint, "GraphExecGroup", None)


class Readings:
    """Everything that the rules of one pass read."""

    def __init__(self) -> None:
        self.apart = _Group is not None
        self._group = _Group() if _Group is not None else contextlib.nullcontext()

    def open(self) -> contextlib.AbstractContextManager[object]:
        return self._group


class Saved:
    """A node whose saved tensors are read once, however often they are asked for."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._node, name)
        if name.startswith("_saved_") or name == "saved_tensors":
            self.__dict__[name] = value
        return value


def reading() -> bool:
    """Whether a pass's readings are open: a node that is called reads its tensors once more."""
    return _Group is not None and torch._C._get_graph_exec_group() is not None
