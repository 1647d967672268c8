"""Losses of Hugging Face models, one value per example: (outputs, targets), on outputs.logits.

A model's own ``outputs.loss`` divides by how many tokens the whole batch has: one example's
gradient then depends on the others', and no clip bounds it. Targets go to the loss, and not to the
model as ``labels``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from dpsgd_torch.errors import ModelError

_IGNORED = -100  # as transformers' data collators mark what is no target


def classification(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of one label an example.

    Args:
        outputs: with logits (n, classes).
        targets: (n,) classes.

    >>> classification({"logits": torch.zeros(3, 2)}, torch.tensor([0, 1, 1]))
    tensor([0.6931, 0.6931, 0.6931])
    """
    logits = _logits(outputs, 2, targets, 1)
    return functional.cross_entropy(logits, targets, reduction="none")


def token_classification(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of a label for each token, or of masked tokens: the mean of each example.

    Args:
        outputs: with logits (n, tokens, classes).
        targets: (n, tokens) classes; −100 where none counts, 0 is an example's loss without any.

    >>> token_classification({"logits": torch.zeros(1, 3, 2)}, torch.tensor([[1, -100, 0]]))
    tensor([0.6931])
    """
    return _mean_over_tokens(_logits(outputs, 3, targets, 2), targets)


def causal_lm(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the next token, shifted by one: the mean over each example's tokens.

    Args:
        outputs: with logits (n, tokens, vocabulary).
        targets: (n, tokens) the tokens themselves, −100 where they do not count (padding, prompt).

    >>> causal_lm({"logits": torch.zeros(1, 3, 2)}, torch.tensor([[1, 0, -100]]))
    tensor([0.6931])
    """
    return _mean_over_tokens(_logits(outputs, 3, targets, 2)[:, :-1], targets[:, 1:])


def _mean_over_tokens(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    values = functional.cross_entropy(
        logits.transpose(1, 2), targets, ignore_index=_IGNORED, reduction="none"
    )
    return values.sum(1) / (targets != _IGNORED).sum(1).clamp(min=1)


def _logits(outputs: Any, ndim: int, targets: torch.Tensor, of_targets: int) -> torch.Tensor:
    found = outputs.get("logits") if isinstance(outputs, dict) else None
    found = getattr(outputs, "logits", found)
    if not isinstance(found, torch.Tensor):
        raise ModelError(
            f"loss: the model returned {type(outputs).__name__} without logits: must be a dict or "
            "an object with some; write a loss that takes its outputs apart"
        )
    if found.ndim != ndim or not isinstance(targets, torch.Tensor) or targets.ndim != of_targets:
        given = tuple(targets.shape) if isinstance(targets, torch.Tensor) else type(targets)
        raise ModelError(
            f"loss: logits of shape {tuple(found.shape)} and targets {given}: must be of {ndim} "
            f"and {of_targets} dimensions; dpsgd_torch.losses has classification (a label an "
            "example), token_classification and causal_lm (one a token)"
        )
    return found
