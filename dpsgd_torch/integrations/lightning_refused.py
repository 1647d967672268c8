"""What of Lightning no private step can keep to, refused by name before anything is charged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from lightning.pytorch.utilities.model_helpers import is_overridden

from dpsgd_torch.errors import RunError

PRECISIONS = ("32-true", "bf16-mixed")
_PARTS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
_STEPS = ("backward", "optimizer_step", "configure_gradient_clipping", *_PARTS)


def refuse_unfit(trainer: Any, module: LightningModule) -> None:
    """Refuse each setting and hook that would be lost, or would break what ε rests on.

    Raises:
        RunError: the first of them.
    """
    for what, why in _found(trainer, module):
        raise RunError(f"{what}: {why}; nothing was charged")


def _found(trainer: Any, module: LightningModule) -> Iterator[tuple[str, str]]:
    connector = trainer._accelerator_connector
    devices, nodes = len(connector._parallel_devices), connector._num_nodes_flag
    if devices * nodes != 1:
        yield (
            f"devices = {devices}, num_nodes = {nodes}",
            "must be 1: each would draw a batch of its own; pass devices=1",
        )
    if not module.automatic_optimization:
        yield (
            "automatic_optimization = False",
            "backward and step are the strategy's: set it to True and return per-example losses",
        )
    if trainer.gradient_clip_val is not None:
        yield (
            f"gradient_clip_val = {trainer.gradient_clip_val}",
            "each example's gradient is clipped already: pass Privacy(clip_norm=…) in its place",
        )
    if trainer.accumulate_grad_batches != 1:
        yield (
            f"accumulate_grad_batches = {trainer.accumulate_grad_batches}",
            "must be 1: batches are cut to what fits in memory; raise batch_size in its place",
        )
    if trainer.precision not in PRECISIONS:
        yield f"precision = {trainer.precision!r}", f"must be {' or '.join(map(repr, PRECISIONS))}"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        yield "precision: a GradScaler", "would scale clipped gradients: pass 'bf16-mixed'"
    limit = trainer.limit_train_batches  # as an int, of batches
    if isinstance(limit, int) or limit != 1.0 or trainer.overfit_batches:
        yield (
            "limit_train_batches, overfit_batches or fast_dev_run",
            "each step is planned and costs ε, also one of a trial; the loop is tried before the "
            "first charge anyway: leave it out",
        )
    if trainer.reload_dataloaders_every_n_epochs:
        yield "reload_dataloaders_every_n_epochs", "a run keeps its data: leave it out"
    if trainer.max_steps == -1 and trainer.max_epochs in (None, -1):
        yield (
            "max_epochs",
            "must be given, or max_steps: noise is chosen for so many steps",
        )
    for name in _STEPS:
        if is_overridden(name, module):
            yield (
                f"{type(module).__name__}.{name}",
                "would not be called: clip, noise and step are the strategy's; leave it out",
            )
    for holder in (module, getattr(trainer, "datamodule", None)):
        if is_overridden("on_before_batch_transfer", holder):
            yield (
                f"{type(holder).__name__}.on_before_batch_transfer",
                "rows are on the device before they are a batch: use on_after_batch_transfer",
            )
    for callback in trainer.callbacks:
        yield from _of_callback(callback)


def _of_callback(callback: Callback) -> Iterator[tuple[str, str]]:
    name = type(callback).__name__
    if isinstance(callback, GradientAccumulationScheduler | StochasticWeightAveraging):
        yield (
            f"callbacks: {name}",
            "changes steps that were planned: leave it out (WeightAveraging averages weights)",
        )
    for hook in _PARTS:
        if is_overridden(hook, callback, parent=Callback):
            yield f"callbacks: {name}.{hook}", "would not be called: use on_train_batch_end"
