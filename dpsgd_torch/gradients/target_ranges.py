"""Ranges of targets that torch's losses mean something for, where they are known by name."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dpsgd_torch.data.survey import Column
from dpsgd_torch.losses import causal_lm, classification, token_classification

_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, functional.cross_entropy, functional.nll_loss)
_OF_LOGITS = (classification, token_classification, causal_lm)
_SHARES = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    functional.binary_cross_entropy,
    functional.binary_cross_entropy_with_logits,
)


@dataclass(frozen=True)
class TargetRange:
    """What a loss takes as targets: classes counted from 0, or numbers from 0 to 1.

    ``ignored``: a target that stands for none.
    """

    loss: str
    classes: bool
    ignored: int | None = None

    @classmethod
    def of(cls, loss: Any) -> TargetRange | None:
        """That of a loss of torch's, None where it is another's."""
        kind, options = _unwrapped(loss)
        name = getattr(kind, "__name__", "loss")
        if _among(kind, _CLASSES):
            ignored = options.get("ignore_index", -100)
            return cls(name, True, ignored if isinstance(ignored, int) else None)
        if _among(kind, _OF_LOGITS):
            return cls(name, True, -100)
        return cls(name, False) if _among(kind, _SHARES) else None

    def broken(self, targets: Column, outputs: Any) -> tuple[int, str] | None:
        """The row and the rule that it breaks, of targets whose range is known.

        Args:
            outputs: the model's, of any number of examples.
        """
        if self.classes and not targets.whole:
            return None  # shares of classes
        most, rule = 1.0, "must lie between 0 and 1"
        if self.classes:
            count = _classes(outputs)
            if count is None:
                return None
            most = count - 1
            rule = f"must be ≥ 0 and < {count}, the model's outputs"
            rule += "" if self.ignored is None else f" (or {self.ignored}, which is ignored)"
        if targets.least[0] < 0 and targets.least[1] >= 0:
            return targets.least[1], rule
        return (targets.most[1], rule) if targets.most[0] > most else None


def _unwrapped(loss: Any) -> tuple[Any, dict[str, Any]]:
    """A module's type and attributes, or a function and its arguments' values."""
    if isinstance(loss, nn.Module):
        return type(loss), {"ignore_index": getattr(loss, "ignore_index", None)}
    given: dict[str, Any] = {}
    while isinstance(loss, functools.partial):
        given, loss = {**loss.keywords, **given}, loss.func
    if _among(loss, _CLASSES):
        default = inspect.signature(loss).parameters["ignore_index"].default
        return loss, {"ignore_index": default, **given}
    return loss, given


def _among(kind: Any, known: tuple[Any, ...]) -> bool:
    return any(kind is each for each in known)  # a foreign == may say anything


def _classes(outputs: Any) -> int | None:
    """How many classes the outputs tell apart; None of what cannot be told."""
    if isinstance(outputs, torch.Tensor):
        return outputs.shape[1] if outputs.ndim >= 2 else None
    logits = outputs.get("logits") if isinstance(outputs, dict) else None
    logits = getattr(outputs, "logits", logits)
    return logits.shape[-1] if isinstance(logits, torch.Tensor) and logits.ndim >= 2 else None
