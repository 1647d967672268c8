"""The whole story on one page: config → task → plan → training → ε twice → report."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from accountant import dpsgd_steps
from dpsgd_torch.config import RunConfig
from dpsgd_torch.errors import ConfigError, RunError
from dpsgd_torch.flags import Request
from dpsgd_torch.presets import PRESETS
from dpsgd_torch.progress import Presenter
from dpsgd_torch.report.page import write_report
from dpsgd_torch.report.statement import statement
from dpsgd_torch.spent import PrivacySpent
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.history import History
from dpsgd_torch.training.run_folder import RunFolder
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Path
    history: History
    twin: History | None
    spent: PrivacySpent | None
    stopped: str


def run(request: Request, present: Presenter) -> Outcome:
    """Train what was requested, or go on with it, and leave the run folder complete."""
    if request.resume:
        folder = RunFolder(request.resume)
        root = _read_root(folder)
        config = _read_config(folder, root)
    else:
        config = request.preset.config
        folder = RunFolder(request.out or _fresh_name(config.preset))
        folder.refuse_occupied()
        root = Streams().root if config.seed is None else config.seed

    _device(config.device)
    task = load_task(config, request.data_dir, request.partial)
    if config.dataset_size is None:
        config = dataclasses.replace(config, dataset_size=len(task.train[0]))
    with contextlib.closing(_trainer(config, task, root, folder.path)) as trainer:
        if request.resume:
            trainer.resume()
        else:
            trainer.open()
            folder.write_json("config.json", config.to_json())
            folder.write_json("task.json", task.to_json())
        present.start(config, trainer)
        twin = None
        try:
            present.follow("private" if config.dp else "non-private", trainer.run())
            if config.twin and config.dp:
                other = _trainer(dataclasses.replace(config, dp=False), task, root, None)
                present.follow("non-private twin", other.run())
                twin = other.history
                folder.write_lines("private/twin-metrics.jsonl", (r.to_json() for r in twin.epochs))
        except KeyboardInterrupt:
            command = f"python -m dpsgd_torch.train {shlex.join(_go_on(request, folder))}"
            raise KeyboardInterrupt(f"after step {trainer.done}; go on with {command}") from None
        spent = trainer.privacy_spent() if config.dp else None
        trainer.write_results(folder, spent)
    outcome = Outcome(folder.path, trainer.history, twin, spent, trainer.stopped)
    claim = PRESETS[config.preset]().claim
    words = statement(
        config,
        spent,
        claim=claim,
        stopped=trainer.stopped,
        note=task.note,
        has_twin=twin is not None,
    )
    folder.write_text("statement.txt", words)
    write_report(folder, config, trainer.history, twin, spent, words)
    present.end(outcome)
    return outcome


def _trainer(config: RunConfig, task: Task, root: int, run_dir: Path | None) -> Trainer:
    assert config.dataset_size is not None
    steps = dpsgd_steps(
        dataset_size=config.dataset_size, batch_size=config.batch_size, epochs=config.epochs
    )
    return Trainer(
        task.make_model(Streams(root).torch("init")),
        task.loss,
        task.train,
        privacy=config.privacy(steps),
        batch_size=config.batch_size,
        epochs=config.epochs,
        optimizer=_sgd(config.learning_rate),
        test_tensors=task.test,
        metrics=task.metrics,
        run_dir=run_dir,
        physical_batch_size=config.physical_batch_size,
        checkpoint_every=config.checkpoint_every,
        device=_device(config.device),
        seed=root,
    )


def _sgd(rate: float) -> Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def _device(name: str) -> torch.device:
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # the meta device has no values
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device = {name}: cannot be used ({reason}); try --device cpu"
        ) from error


def _read_config(folder: RunFolder, root: int) -> RunConfig:
    fields = folder.read_json("config.json")
    try:
        PRESETS[fields["preset"]]
        return RunConfig(**{**fields, "seed": root if fields["seed"] else None})
    except (TypeError, KeyError) as error:
        raise RunError(
            f"{folder.path / 'config.json'}: is not a configuration of this version ({error}); "
            "resume with the version it began with"
        ) from error


def _read_root(folder: RunFolder) -> int:
    try:
        return int(folder.read_json("private/streams.json")["root"], 16)
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(
            f"{folder.path / 'private/streams.json'}: holds no stream key ({error}); restore it: "
            "without it the run cannot go on"
        ) from error


def _go_on(request: Request, folder: RunFolder) -> list[str]:
    words = ["--resume", str(folder.path)]
    words += ["--data-dir", str(request.data_dir)] if request.data_dir else []
    return words + (["--partial", request.partial] if request.partial != "refuse" else [])


def _fresh_name(preset: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{preset}-{stamp}"
