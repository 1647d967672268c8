"""What every process of a run but the first does: train its share, and keep and say nothing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from dpsgd_torch.app.assembly import baseline_of, make_trainers, start, usable_device
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.flags import Request
from dpsgd_torch.app.folds import chosen_units, make_folds
from dpsgd_torch.app.preprocessing import Preprocessing
from dpsgd_torch.app.stored_config import config_from_json
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.training.world import World

BEGUN, TOLD = "what the run is", "the report"  # where all wait for rank 0


def follow(request: Request, world: World) -> None:
    """Follow rank 0's ``run``, step by step."""
    with world.together(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rank 0 says the same
        said: dict[str, Any] = world.first(dict, BEGUN)
        root = int(said["root"])
        config = config_from_json(said["config"], Path("rank 0"), root)
        usable_device(config.device)
        task = load_task(config, request.data_dir, request.partial)
        units = chosen_units(config, task)
        folds = make_folds(config, task, units, root)
        nothing = Preprocessing()
        trainers = make_trainers(folds, task, root, nothing, None, None, world)
        for trainer in trainers:
            start(trainer)
        for trainer in trainers:
            for _ in trainer.run():
                pass
        if other := baseline_of(config, folds[0], task, root, world):
            for _ in other.run():
                pass
        world.exchange(TOLD)


def shared(config: RunConfig, root: int) -> dict[str, Any]:
    """What rank 0 tells of the run that begins or goes on."""
    return {"config": config.to_json(), "root": root}


def refuse_many(config: RunConfig, preprocessing: Preprocessing, world: World) -> None:
    """Refuse what draws noise of its own, outside training, where there are several processes."""
    if world.is_alone:
        return
    own = "label_epsilon" if config.label_epsilon else ""
    own = own or ("statistics, features or frequencies" if preprocessing.events else "")
    if config.audit:
        raise ConfigError(
            f"audit = {config.audit}: each of {world.size} processes would insert canaries; audit "
            "a run of one process"
        )
    if config.explain_loss:
        raise ConfigError(
            f"explain_loss = True: trains on made-up data in one process, and {world.size} would "
            "wait for it; run without torchrun, or leave it out"
        )
    if own:
        raise ConfigError(
            f"processes = {world.size}: {own} are released before training by one process alone; "
            "run without torchrun, or leave them out"
        )
