"""What a trace took as given: values that a model and a loss hold, which code may read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dpsgd_torch.data.base import Batch
from dpsgd_torch.data.trees import first, named
from dpsgd_torch.gradients.parts.pieces import exact_float32

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}  # parameters, hooks: looked at elsewhere


class CannotCompile(Exception):
    """Why a model's steps are taken without: half a line."""


@dataclass(frozen=True)
class Held:
    """Whoever holds the same is computed by the same traced operations.

    * ``layout``: names, dtypes and sizes of the tensors of a row.
    * ``modules``: of each module of the model, and of a loss that is one: mode and plain values.
    * ``settings``: of torch, which decide how products are rounded.
    """

    layout: tuple[Any, ...]
    modules: tuple[Any, ...]
    settings: tuple[Any, ...]
    hooked: tuple[str, ...]

    @staticmethod
    def of(model: nn.Module, loss: object, batch: Batch) -> Held:
        parts = [*model.named_modules(), *_modules_of(loss)]
        device = first(batch).device
        return Held(
            tuple((name, t.dtype, t.shape[1:], t.device) for name, t in named(batch, "")),
            tuple(_values(module) for _, module in parts),
            (exact_float32(device), torch.is_autocast_enabled(device.type)),
            tuple(path or "model" for path, module in parts if _hooks(module)),
        )

    def refuse_hidden(self) -> None:
        """Refuse what runs code of its own at each pass.

        Raises:
            CannotCompile: it is hooked, or under autocast.
        """
        if self.hooked:
            raise CannotCompile(f"layer {self.hooked[0]} has a hook, which a trace would run once")
        if self.settings[1]:
            raise CannotCompile("autocast is on, whose roundings a compiled loop moves elsewhere")


def _modules_of(loss: object) -> Iterator[tuple[str, nn.Module]]:
    """The loss, and what it encloses, where that is a module."""
    cells = getattr(loss, "__closure__", None) or ()
    for held in (loss, *(cell.cell_contents for cell in cells)):
        if isinstance(held, nn.Module):
            yield from held.named_modules(prefix="loss")


def _values(module: nn.Module) -> tuple[Any, ...]:
    own = vars(module)
    plain = tuple((k, _plain(v)) for k, v in own.items() if k not in _OF_TORCH)
    frozen = tuple(p is not None and p.requires_grad for p in module._parameters.values())
    return (id(module), type(module), plain, frozen)


def _plain(value: Any, deep: int = 4) -> Any:
    """A value that can be compared later, of what lists and dicts hold too; the rest by type."""
    if type(value) in _PLAIN:
        return value
    if deep and type(value) in (tuple, list):
        return (type(value), *(_plain(held, deep - 1) for held in value))
    if deep and type(value) is dict:
        return (dict, *((_plain(k, 1), _plain(v, deep - 1)) for k, v in value.items()))
    return type(value)


def _hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        or module._backward_pre_hooks
    )  # fmt: skip
