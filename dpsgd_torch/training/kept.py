"""What checkpoints keep beside model and optimizer: schedulers, averaged weights, one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dpsgd_torch.errors import ModelError, RunError


class Kept:
    """Things with ``state_dict`` and ``load_state_dict``, by name."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, name: str, thing: Any) -> None:
        """Keep one more.

        Raises:
            ModelError: it has no state, or one that no checkpoint can hold; or a score steers it.
        """
        refuse_plateau(name, thing)
        if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
            raise ModelError(
                f"{name} = {type(thing).__name__}: must have state_dict and load_state_dict to be "
                "kept in a checkpoint"
            )
        _packed(thing.state_dict(), f"{name}", {})
        self._held[name] = thing

    def things(self) -> list[Any]:
        """All that is kept."""
        return list(self._held.values())

    def to_json(self) -> dict[str, Any]:
        """What each is, and how it begins; tensors by name."""
        plain = self.state()[1]
        return {name: [type(self._held[name]).__name__, plain[name]] for name in plain}

    def steps(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether a scheduler of this optimizer is among them."""
        held = [each for each in self._held.values() if isinstance(each, LRScheduler)]
        return any(each.optimizer is optimizer for each in held)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors by name, and the rest as JSON that says where they belong."""
        tensors: dict[str, torch.Tensor] = {}
        plain = {
            name: _packed(thing.state_dict(), f"kept.{name}", tensors)
            for name, thing in self._held.items()
        }
        return tensors, plain

    def load(self, plain: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Give each the state it was kept with.

        Raises:
            RunError: others were kept than are asked for now.
        """
        if other := sorted(self._held.keys() ^ plain.keys()):
            has, lacks = ("the run", "it") if other[0] in plain else ("it", "the run")
            raise RunError(
                f"{other[0]}: {has} keeps its state and {lacks} does not; keep what the run began "
                "with, before it is resumed"
            )
        for name, thing in self._held.items():
            thing.load_state_dict(_unpacked(plain[name], tensors))


def refuse_plateau(name: str, thing: Any) -> None:
    """Refuse a scheduler that follows a score, which nobody can tell the origin of."""
    if isinstance(thing, ReduceLROnPlateau):
        raise ModelError(
            f"{name} = ReduceLROnPlateau: follows a score, and a score of private rows would steer "
            "training outside ε; use Trainer's validation= and early_stopping=EarlyStopping("
            "plateau=…), whose scores are public or paid for"
        )


def is_scheduled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scheduler of torch's has wrapped the optimizer's step."""
    return hasattr(optimizer.step, "_wrapped_by_lr_sched")


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, Counter) else "dict"
        return {
            kind: [[key, _packed(part, f"{name}.{key}", tensors)] for key, part in value.items()]
        }
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(part, f"{name}.{i}", tensors) for i, part in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ModelError(
        f"{name} = {type(value).__name__}: fits in no checkpoint, which holds tensors, numbers, "
        "text, lists and dicts; leave it out of the state_dict"
    )


def _unpacked(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind in ("dict", "counter"):
        pairs = {key: _unpacked(part, tensors) for key, part in held}
        return Counter(pairs) if kind == "counter" else pairs
    parts = [_unpacked(part, tensors) for part in held]
    return parts if kind == "list" else tuple(parts)
