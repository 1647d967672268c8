"""Ids that an embedding has no row for, found before it is asked for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import DataError

_KINDS = (nn.Embedding, nn.EmbeddingBag)


def embeds(model: nn.Module) -> bool:
    """Whether a model looks anything up."""
    return any(isinstance(module, _KINDS) for module in model.modules())


@contextlib.contextmanager
def ids_within(model: nn.Module, count: int, named: Callable[[int], str]) -> Iterator[None]:
    """Refuse an id < 0 or ≥ num_embeddings in passes inside.

    torch raises an IndexError that names no row; on a GPU it ends the process's use of the GPU.

    Args:
        count: of the examples in a pass.
        named: what to call one of them.
    """
    hooks = [
        module.register_forward_pre_hook(_check(name, module, count, named))
        for name, module in model.named_modules()
        if isinstance(module, _KINDS)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check(
    name: str, layer: nn.Module, count: int, named: Callable[[int], str]
) -> Callable[[nn.Module, Any], None]:
    known = int(layer.num_embeddings)  # type: ignore[arg-type]

    def check(_: nn.Module, given: Any) -> None:
        ids = given[0] if given else None
        if not isinstance(ids, torch.Tensor) or ids.is_floating_point() or not ids.numel():
            return
        outside = (ids < 0) | (ids >= known)
        if not outside.any():
            return
        per_row = ids.shape[:1] == (count,)
        row = int(outside.reshape(count, -1).any(1).nonzero()[0]) if per_row else None
        raise DataError(
            f"{'a row' if row is None else named(row)}: has an id outside 0 … {known - 1} in layer "
            f"{name or 'model'} = {type(layer).__name__}, whose num_embeddings is {known}: count "
            "ids from 0, or give it more embeddings"
        )

    return check
