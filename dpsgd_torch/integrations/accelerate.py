"""Accelerate: a private loop over what an ``Accelerator`` prepared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import nn

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.trees import Tree
from dpsgd_torch.errors import RunError
from dpsgd_torch.integrations.private_options import PrivateOptions
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.training.own_loop import Private


def private_with(
    accelerator: Any,
    model: nn.Module,
    optimizer: Any,
    data: Sequence[Tree] | Data,
    *,
    privacy: Privacy,
    batch_size: int,
    epochs: float,
    **options: Unpack[PrivateOptions],
) -> Private:
    """``Private`` over what ``accelerator.prepare`` returned, on the accelerator's device.

    * ``private.backward(losses)`` and ``private.step()`` take the place of
      ``accelerator.backward(loss)`` and ``optimizer.step()``; ``private`` that of the loader.
    * Data are handed over as they are: a prepared loader's batches are not Poisson samples.

    Args:
        accelerator: an ``accelerate.Accelerator``.
        model, optimizer: as ``accelerator.prepare(model, optimizer)`` returned them.
        data, privacy, batch_size, epochs, options: as ``Private`` takes them.

    Raises:
        RunError: more than one process, gradient accumulation, a GradScaler, a prepared loader.
        TrainingError: what else ``Private`` refuses; nothing was charged.
    """
    _refuse_unfit(accelerator, data)
    several = isinstance(optimizer, list | tuple)
    raw = [getattr(o, "optimizer", o) for o in (optimizer if several else [optimizer])]
    if any(getattr(o, "scaler", None) is not None for o in (optimizer if several else [optimizer])):
        raise RunError(_SCALED)
    return Private(
        model,
        raw,
        data,
        privacy=privacy,
        batch_size=batch_size,
        epochs=epochs,
        device=torch.device(accelerator.device),
        **options,
    )


_SCALED = (
    "mixed_precision = 'fp16': a GradScaler would scale what is clipped; pass "
    "Accelerator(mixed_precision='bf16'); nothing was charged"
)


def _refuse_unfit(accelerator: Any, data: Any) -> None:
    if accelerator.num_processes != 1:
        raise RunError(
            f"num_processes = {accelerator.num_processes}: must be 1: each process would draw a "
            "batch of its own; nothing was charged"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise RunError(
            f"gradient_accumulation_steps = {accelerator.gradient_accumulation_steps}: must be 1: "
            "batches are cut to what fits in memory; raise batch_size in its place"
        )
    if getattr(accelerator, "scaler", None) is not None:
        raise RunError(_SCALED)
    if type(data).__module__.startswith("accelerate."):
        raise RunError(
            f"data = {type(data).__name__}: is a prepared loader, whose batches are no Poisson "
            "samples; pass the dataset, or the DataLoader as it was before prepare"
        )
