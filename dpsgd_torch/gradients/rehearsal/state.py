"""What a model holds, before and after: a pass may write to none of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ModelError


class State:
    """Parameters (frozen or not), buffers and extra state as they were."""

    def __init__(self, model: nn.Module) -> None:
        self._held: list[tuple[dict[str, Any], str, str, torch.Tensor, torch.Tensor]] = []
        self._extra: list[tuple[nn.Module, str, Any]] = []
        for path, module in model.named_modules():
            prefix = f"{path}." if path else ""
            for kind, held in (("parameter", module._parameters), ("buffer", module._buffers)):
                for name, tensor in held.items():
                    if tensor is not None:
                        copied = tensor.detach().clone()
                        self._held.append((held, name, f"{kind} {prefix}{name}", tensor, copied))
            if type(module).get_extra_state is not nn.Module.get_extra_state:
                self._extra.append((module, path, copy.deepcopy(module.get_extra_state())))

    def changed(self) -> list[str]:
        """What is not as it was, by kind and path."""
        names = [
            told
            for held, name, told, tensor, was in self._held
            if held.get(name) is not tensor or not _same(tensor.detach(), was)
        ]
        return names + [
            f"extra state of {path or 'model'}"
            for module, path, was in self._extra
            if not _same(module.get_extra_state(), was)
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back that was changed."""
        for held, name, _, tensor, was in self._held:
            held[name] = tensor
            if not _same(tensor.detach(), was):
                tensor.data = was.clone() if tensor.shape != was.shape else tensor.data
                tensor.detach().copy_(was)
        for module, _, was in self._extra:
            if not _same(module.get_extra_state(), was):
                module.set_extra_state(copy.deepcopy(was))

    def refuse_changes(self) -> None:
        """Refuse a model that a pass has written to."""
        if names := self.changed():
            self.restore()
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelError(
                f"{names[0]}{more}: changes in a forward pass, and no noise "
                "covers it; freeze it (max_norm=None, momentum 0) or keep it out of the model"
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
            return False
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)
