"""What a face of training was given, checked and put together as the state of a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from accountant.errors import check
from dpsgd_torch.data.base import Data
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.data.tensors import refusing_device
from dpsgd_torch.data.trees import Tree, call
from dpsgd_torch.data.unit_ids import UnitIds
from dpsgd_torch.gradients import model_checks as validate
from dpsgd_torch.gradients.losses import Loss, per_example
from dpsgd_torch.precision import FLOAT32, Precision
from dpsgd_torch.privacy.privacy import Privacy, declared_sampler
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.schedules import Schedule
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.arguments import refuse_apart, refuse_unfit
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.fingerprint import hashed
from dpsgd_torch.training.kept import Kept
from dpsgd_torch.training.loop import epoch_ends
from dpsgd_torch.training.metrics import Metrics
from dpsgd_torch.training.modes import TrainingModes
from dpsgd_torch.training.optimizers import Optimizers, made_optimizer
from dpsgd_torch.training.physical_size import AUTO, begun_with
from dpsgd_torch.training.rates import SchedulerFactory, made_scheduler
from dpsgd_torch.training.released_state import ReleaseGuard
from dpsgd_torch.training.secured import secured
from dpsgd_torch.training.shards import Shards, sharded_privacy
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.steering import Steering, validation_events
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.validation import HeldOut, Validation
from dpsgd_torch.training.world import ALONE, World
from dpsgd_torch.training.wrapped import refuse_wrapped


def assembled(
    model: nn.Module,
    loss: Any,
    given_data: Sequence[Tree] | Data,
    *,
    privacy: Privacy | None,
    batch_size: int,
    epochs: float,
    optimizer: Optimizers,
    test_tensors: Sequence[Tree] | Data | None,
    metrics: Mapping[str, Any] | None,
    units: Any,
    rows_per_unit: int | None,
    sampler: Callable[..., Sampler],
    run_dir: str | os.PathLike[str] | RunFolder | None,
    physical_batch_size: int | str,
    checkpoint_every: int,
    rate_schedule: Schedule | None,
    lr_scheduler: LRScheduler | SchedulerFactory | None,
    validation: Validation | None,
    early_stopping: EarlyStopping | None,
    device: str | torch.device,
    seed: int | None,
    compiles: bool = False,
    values: Loss | None = None,
    world: World = ALONE,
    precision: str | Precision = FLOAT32,
    secure: bool = False,
    shard: bool = False,
) -> RunState:
    """The state of a run that has not begun; the model is on its device, and in training mode.

    Args:
        values: the loss as it is called, where ``loss`` only names it.
        world: the processes that train together; all but the first keep nothing.
        secure: exact noise, and a cryptographic generator for it and for the samples.
        shard: whether each of them holds a part of the model alone.

    Raises:
        InvalidValue, ModelError, DataError: nothing was charged.
    """
    refuse_unfit(
        privacy,
        units,
        rows_per_unit,
        validation,
        physical_batch_size=physical_batch_size,
        checkpoint_every=checkpoint_every,
        seed=seed,
    )
    if secure:
        privacy, validation = secured(privacy, validation, seed)
    refuse_wrapped(model)
    with refusing_device(device):
        device = world.device(torch.device(device))
    precision = fitting_precision(precision, device, told=world.is_first)
    check(
        not (secure and (precision.is_mixed or compiles)),
        "secure",
        True,
        "charges for the rounding of float32 passes that are not compiled, and of no others",
        "leave out precision and compile, or secure",
    )
    privacy = sharded_privacy(privacy, early_stopping) if shard else privacy
    data = data_on(device, given_data, "train_tensors")
    check(
        not (secure and privacy and data.schema.varies),
        "secure",
        True,
        "takes rows of one length, since a pass of another length rounds every row otherwise",
        "pad all rows to one declared length (Padded(…, length=…)), or leave out secure",
    )
    test = None if test_tensors is None else data_on(device, test_tensors, "test_tensors")
    ids = None if units is None else UnitIds(units, len(data))
    sampling = declared_sampler(
        sampler,
        privacy,
        dataset_size=(privacy and privacy.dataset_size) or len(ids.rows if ids else data),
        batch_size=batch_size,
        epochs=epochs,
        rows_per_unit=rows_per_unit,
    )
    also = validation_events(validation, len(epoch_ends(sampling)))
    plan = privacy.plan(sampling, also) if privacy else None
    refuse_apart(plan, world)
    taken = per_example(loss) if values is None else values
    modes = TrainingModes(model.to(device))
    guard = ReleaseGuard(model, watching=privacy is not None)
    trainable = validate.trainable_parameters(model)
    made = made_optimizer(optimizer, model, trainable)
    validate.refuse_unreachable(model, made)
    held_out = HeldOut(validation, taken, device) if validation else None
    scheduler, kept = made_scheduler(lr_scheduler, made, rate_schedule), Kept()
    if scheduler:
        kept.add("lr_scheduler", scheduler)
    return RunState(
        model=model,
        modes=modes,
        given_loss=loss,
        loss=taken,
        scores=Metrics(taken, metrics),
        data=data,
        test=test,
        units=ids.rows if ids else None,
        unit_digest=hashed(ids.fingerprint()) if ids else "",
        sampling=sampling,
        epochs=epochs,
        privacy=privacy,
        plan=plan,
        optimizer=made,
        steering=Steering(made, rate_schedule, held_out, early_stopping, scheduler),
        kept=kept,
        guard=guard,
        streams=_streams(world, seed, secure),
        folder=_folder(run_dir) if world.is_first else None,
        device=device,
        physical_batch_size=begun_with(physical_batch_size),
        picks_size=physical_batch_size == AUTO,
        checkpoint_every=checkpoint_every,
        compiles=compiles,
        world=world,
        precision=precision,
        forward=precision.forward(call, device),
        shards=Shards(model, made, world) if shard and not world.is_alone else None,
    )


def _streams(world: World, seed: int | None, secure: bool) -> Streams:
    """Those of the seed, or of a key that rank 0 draws."""
    root = world.first(lambda: Streams().root) if seed is None else int(seed)
    return Streams(root, secure=secure)


def _folder(run_dir: str | os.PathLike[str] | RunFolder | None) -> RunFolder | None:
    return run_dir if isinstance(run_dir, RunFolder | None) else RunFolder(Path(run_dir))


def fitting_precision(
    asked: str | Precision, device: torch.device, *, told: bool = True
) -> Precision:
    """The precision, on a device that has it; a warning where it is slow.

    Raises:
        InvalidValue: the device, or an autocast that is open, is in its way.
    """
    precision = Precision.of(asked)
    precision.refuse_unfit(device)
    if told and (slow := precision.slowness(device)):
        warnings.warn(slow, stacklevel=4)
    return precision
