"""Where accuracy is lost: the run's plan on made-up data, without noise, and without clip.

No private row is looked at and no ledger is charged but one in memory, of made-up rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from dpsgd_torch.app.assembly import make_trainer
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.explained import KINDS, Explained
from dpsgd_torch.app.folds import Fold
from dpsgd_torch.app.preprocessing import Preprocessing
from dpsgd_torch.app.progress import Presenter
from dpsgd_torch.data.trees import length
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import kind_of
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.history import EpochRecord
from dpsgd_torch.training.loop import Progress
from dpsgd_torch.training.unfit_rows import untold

MOST_ROWS, TEST_ROWS = 6000, 2000
SEEDS = (1, 2, 3)  # of made-up runs: no secret
_NO_NOISE = 1e-6  # times the clip norm: the least that a plan takes
_FILE = "made-up.json"


def explain(
    config: RunConfig, plan: PrivacyPlan | None, folder: RunFolder, present: Presenter
) -> Explained | None:
    """What the runs on made-up data reached, where they were asked for; read, if done before."""
    if not config.explain_loss or plan is None:
        return None
    if (folder.path / _FILE).exists():
        return Explained.from_json(folder.read_json(_FILE))
    small = shrunk(config, plan, MOST_ROWS)
    assert small.dataset_size is not None
    task = kind_of(config.dataset).made_up(config.task, small.dataset_size, TEST_ROWS)
    reached: dict[str, tuple[float, ...]] = {}
    for kind in KINDS:
        found: list[float] = []
        present.follow(f"made-up data, {kind}", _runs(changed(small, kind), task, found))
        reached[kind] = tuple(found)
    assert task.test is not None
    explained = Explained(
        rows=small.dataset_size,
        test_rows=length(task.test[0]),
        share=small.batch_size / config.batch_size,
        reached=reached,
    )
    folder.write_json(_FILE, explained.to_json())
    return explained


def shrunk(config: RunConfig, plan: PrivacyPlan, most: int) -> RunConfig:
    """The run on ``most`` rows: batch and noise multiplier are the same share of its own.

    σC / B, the noise in the mean gradient, and the passes stay what they are.
    """
    assert config.dataset_size is not None
    size = config.microbatch_size
    share = min(1.0, most / config.dataset_size)
    batch = size * max(1, round(config.batch_size * share / size))
    share = batch / config.batch_size
    return dataclasses.replace(
        config,
        dataset_size=max(batch, round(config.dataset_size * share)),
        batch_size=batch,
        microbatches=None if config.microbatches is None else batch // size,
        noise_multiplier=plan.step(0).noise_multiplier * share,
        noise_generator="numpy",
        epsilon=None,
        advantage=None,
        tpr_at_fpr=None,
        privacy_unit="record",
        secure=False,
        folds=1,
        validation="none",
        patience=None,
        plateau=None,
        keep_best=False,
        audit=None,
        twin=False,
        explain_loss=False,
        compile=False,
        shard=False,
        seed=None,
    )


def changed(config: RunConfig, kind: str) -> RunConfig:
    """The configuration of one of ``KINDS``."""
    if kind == "private":
        return config
    if kind == "no noise":
        return dataclasses.replace(config, noise_multiplier=_NO_NOISE, noise_schedule="constant")
    return dataclasses.replace(config, dp=False)


def _runs(config: RunConfig, task: Task, found: list[float]) -> Iterator[Progress]:
    """Train once a seed, as one stretch of training; what each reached is added to ``found``."""
    fold = Fold("training", config, task.train, None, None)
    for done, seed in enumerate(SEEDS):
        with untold():
            trainer = make_trainer(fold, task, seed, Preprocessing(), None, None)
            steps = trainer.sampling.steps
            for at in trainer.run():
                where, epoch = done * steps + at.step, at.epoch
                yield Progress(where, len(SEEDS) * steps, epoch, None)
        found.append(trainer.history.epochs[-1].test["accuracy"])
    told = {"accuracy": sum(found) / len(found)}
    record = EpochRecord(epoch=epoch, step=where, epsilon=None, test=told)
    yield Progress(where, where, epoch, None, record)
