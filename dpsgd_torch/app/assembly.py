"""The parts of a run put together: its plan, its ledger, and a trainer for each model."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from accountant import Ledger, Relation, dpsgd_steps
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.folds import Fold
from dpsgd_torch.app.preprocessing import Preprocessing
from dpsgd_torch.app.stored_config import read_config, refuse_edited
from dpsgd_torch.data.views import Augment
from dpsgd_torch.errors import ConfigError, RunError, told
from dpsgd_torch.optim.adam_bc import AdamBC
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.privacy.privacy import declared_sampler
from dpsgd_torch.quantization import MADE_UP, quantization_aware
from dpsgd_torch.schedules import schedule_from_json
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import public_inputs
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.checkpoint import has_trained
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.loop import epoch_ends
from dpsgd_torch.training.rehearse_compiled import seconds_to_compile
from dpsgd_torch.training.steering import validation_events
from dpsgd_torch.training.streams import ONE_WAY, Key, Streams
from dpsgd_torch.training.trainer import Trainer
from dpsgd_torch.training.unfit_rows import untold
from dpsgd_torch.training.world import ALONE, World

_PLAN = "private/plan.json"


def plan_of(fold: Fold, preprocessing: Preprocessing) -> PrivacyPlan | None:
    """What is charged in all; the same plan is made again inside each trainer."""
    privacy = fold.config.privacy(_steps(fold), preprocessing.events)
    if privacy is None:
        return None
    sampling = declared_sampler(
        fold.config.sampler(),
        privacy,
        dataset_size=_n(fold),
        batch_size=fold.config.batch_size,
        epochs=fold.config.epochs,
        rows_per_unit=_rows_per_unit(fold),
    )
    return privacy.plan(sampling, validation_events(fold.validation, len(epoch_ends(sampling))))


def begin(folder: RunFolder, config: RunConfig, root: int, plan: PrivacyPlan | None) -> None:
    """Everything that resuming needs, an empty ledger too, before anything is spent.

    What the run was asked stands in private/ as well: config.json, which is published and easily
    edited, must still say the same when the run goes on.
    """
    noise = plan.noise_multiplier.to_json() if plan else None
    with folder.beginning():
        folder.write_root(root)
        folder.write_sealed(_PLAN, {"config": config.to_json(), "noise_multiplier": noise})
        folder.write_json("config.json", config.to_json())
        if plan:
            Ledger(folder.ledger, delta=plan.delta, relation=plan.sampling.relation).close()
        elif config.label_epsilon:
            Ledger(folder.ledger, delta=config.delta, relation=Relation.LABEL_CHANGE).close()


def read_begun(folder: RunFolder) -> tuple[int, RunConfig]:
    """The key of the streams and the configuration that a run began with.

    Raises:
        RunError: nothing to go on with, a damaged file, or a config.json that was edited.
    """
    folder.refuse_links()
    folder.refuse_begun_only()
    read_config(folder)
    root = folder.read_root()
    config = read_config(folder, root)
    refuse_edited(config, folder.read_sealed(_PLAN).get("config"), folder.path / "config.json")
    return root, config


def open_ledger(folder: RunFolder, plan: PrivacyPlan) -> Ledger:
    """The run's one ledger, which ``begin`` made; all that is planned is priced once."""
    # another machine may calibrate to another last digit
    noise = schedule_from_json(folder.read_sealed(_PLAN)["noise_multiplier"])
    plan = dataclasses.replace(plan, noise_multiplier=noise)
    return plan.open_ledger(folder.ledger, resumed=True)


def make_trainers(
    folds: Iterable[Fold],
    task: Task,
    root: int,
    preprocessing: Preprocessing,
    ledger: Ledger | None,
    folder: RunFolder | None,
    world: World = ALONE,
    compiling: Callable[[int], None] = lambda seconds: None,
) -> list[Trainer]:
    """One for each fold; what was found in their rows is told once, of the first.

    ``compiling`` is told beforehand how many seconds compiling may take.
    """
    made: list[Trainer] = []
    for fold in folds:
        with untold() if made else contextlib.nullcontext():  # the same rows, cut again
            own = folder_of(folder, fold) if folder else None
            made.append(
                make_trainer(fold, task, root, preprocessing, ledger, own, world, compiling)
            )
    return made


def make_trainer(
    fold: Fold,
    task: Task,
    root: int,
    preprocessing: Preprocessing,
    ledger: Ledger | None,
    folder: RunFolder | None,
    world: World = ALONE,
    compiling: Callable[[int], None] = lambda seconds: None,
) -> Trainer:
    config = fold.config
    model = model_of(config, task, root)
    if config.compile and config.dp:
        compiling(seconds_to_compile(model))
    return Trainer(
        model,
        task.loss,
        fold.train,
        privacy=config.privacy(_steps(fold), preprocessing.events),
        batch_size=config.batch_size,
        epochs=config.epochs,
        optimizer=_optimizer(config),
        rate_schedule=config.rates(_steps(fold)),
        test_tensors=task.test,
        metrics=task.metrics,
        units=fold.units,
        rows_per_unit=_rows_per_unit(fold),
        sampler=config.sampler(),
        validation=fold.validation,
        early_stopping=_early_stopping(config) if fold.validation else None,
        ledger=None if ledger is None else ledger.part(fold.name),
        run_dir=folder,
        physical_batch_size=config.physical_batch_size,
        checkpoint_every=config.checkpoint_every,
        device=usable_device(config.device),
        compile=config.compile,
        seed=Key(own_root(root, fold.name)) if config.secure else own_root(root, fold.name),
        secure=config.secure,
        world=world,
        precision=config.precision,
        shard=config.shard and config.dp,
        views=config.views,
        augment=augment_of(config, task),
        average=config.average,
        filter=config.filter,
    )


def model_of(config: RunConfig, task: Task, root: int) -> nn.Module:
    """The initial model, or its quantisation-aware twin where that is asked for.

    Raises:
        ExportError: the task, as it is trained, is not exported, so that no integers follow.
    """
    model = task.make_model(Streams(root, secure=config.secure).torch("init"))
    if not config.qat:
        return model
    made_up = public_inputs(config)(MADE_UP)
    return quantization_aware(model, made_up.shape[1:], task.input_range, made_up)


def own_root(root: int, name: str) -> int:
    """The key of a part's streams: folds that shared one would share who is in a batch.

    >>> own_root(7, "training"), own_root(7, "fold-1") == own_root(7, "fold-2")
    (7, False)
    """
    if name == "training":
        return root
    own = int.from_bytes(hashlib.sha256(f"{root:x} {name}".encode()).digest(), "big")
    return own | (root & ONE_WAY)


def start(trainer: Trainer) -> None:
    """Open the trainer's folder, or go on where it was left."""
    if trainer.state.world.first(lambda: _goes_on(trainer), "whether the run goes on"):
        trainer.resume()
    else:
        trainer.open()


def _goes_on(trainer: Trainer) -> bool:
    assert trainer.folder
    contract = trainer.folder.private / "contract.json"
    if not contract.exists() and has_trained(trainer.folder.checkpoints):
        raise RunError(f"{contract}: is gone, and steps were taken; restore it")
    return contract.exists()


def baseline_of(
    config: RunConfig, fold: Fold, task: Task, root: int, world: World = ALONE
) -> Trainer | None:
    """The same model on the same batches without privacy, where that was asked for."""
    if not (config.twin and config.dp):
        return None
    fold = dataclasses.replace(
        fold, config=dataclasses.replace(fold.config, dp=False, compile=False)
    )
    return make_trainer(fold, task, root, Preprocessing(), None, None, world)


def folder_of(folder: RunFolder, fold: Fold) -> RunFolder:
    if fold.name == "training":
        return folder
    own = RunFolder(folder.path / fold.name)
    if own.is_free:
        own.create()
    return own


def _n(fold: Fold) -> int:
    assert fold.config.dataset_size is not None
    return fold.config.dataset_size


def _steps(fold: Fold) -> int:
    config = fold.config
    return dpsgd_steps(dataset_size=_n(fold), batch_size=config.batch_size, epochs=config.epochs)


def _rows_per_unit(fold: Fold) -> int | None:
    return None if fold.config.privacy_unit == "record" else fold.config.rows_per_unit


def _optimizer(
    config: RunConfig,
) -> Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]:
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adam-bc": partial(AdamBC, floor=config.noise_floor),
        "adamw-bc": partial(AdamBC, floor=config.noise_floor, decoupled=True),
    }
    kind = kinds[config.optimizer]
    given = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    return lambda parameters: kind(parameters, **given)


def augment_of(config: RunConfig, task: Task) -> Augment | None:
    """The task's own augmentation, where views are asked for.

    Raises:
        ConfigError: it has none.
    """
    if config.views == 1:
        return None
    if task.augment is None:
        raise ConfigError(
            f"views = {config.views}: {config.dataset} has no augmentation as it is trained here "
            "(images and recordings have, features and tables have none); drop --views"
        )
    return task.augment


def _early_stopping(config: RunConfig) -> EarlyStopping:
    return EarlyStopping(
        patience=config.patience, plateau=config.plateau, keep_best=config.keep_best
    )


def usable_device(name: str) -> torch.device:
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # the meta device has no values
        return probe.device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device = {name}: cannot be used ({told(error)}); try --device cpu"
        ) from error
