"""The whole story on one page: config → task → plan → training → ε twice → report."""

from __future__ import annotations

import contextlib
import shlex
from datetime import datetime
from pathlib import Path

from dpsgd_torch.app.assembly import (
    augment_of,
    baseline_of,
    begin,
    make_trainers,
    model_of,
    open_ledger,
    plan_of,
    read_begun,
    start,
    usable_device,
)
from dpsgd_torch.app.classified import classify
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.evidence import found_by, insert, unfit
from dpsgd_torch.app.explain import explain
from dpsgd_torch.app.export.board import on_a_board
from dpsgd_torch.app.flags import Request
from dpsgd_torch.app.folds import chosen_units, make_folds, sized
from dpsgd_torch.app.follow import BEGUN, TOLD, refuse_many, shared
from dpsgd_torch.app.outcome import Outcome
from dpsgd_torch.app.predict import predict
from dpsgd_torch.app.preprocessing import Preprocessing
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.progress import Presenter
from dpsgd_torch.app.randomized_labels import randomized
from dpsgd_torch.app.report.page import write_report
from dpsgd_torch.app.report.promises import Promises
from dpsgd_torch.app.report.statement import statement
from dpsgd_torch.precision import Precision
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee, figures, priced_events
from dpsgd_torch.samplers.cyclic import CyclicPoisson
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.history import averaged
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.trainer import Trainer
from dpsgd_torch.training.world import ALONE, World

_MACHINE = "private/machine.json"


def run(request: Request, present: Presenter, world: World = ALONE) -> Outcome:
    """Train what was requested, or go on with it, and leave the run folder complete."""
    with world.together():
        return _run(request, present, world)


def _run(request: Request, present: Presenter, world: World) -> Outcome:
    if request.resume:
        folder = RunFolder(request.resume)
        root, config = read_begun(folder)
    else:
        config = request.preset.config
        folder = RunFolder(request.out or _fresh_name(config.preset))
        folder.refuse_occupied()
        root = Streams().root if config.seed is None else config.seed

    Precision.of(config.precision).refuse_unfit(usable_device(config.device))
    task = load_task(config, request.data_dir, request.partial)
    augment_of(config, task)  # refused before other releases are charged
    if config.qat:
        model_of(config, task, root)  # as well
    units = chosen_units(config, task)
    config = sized(config, task, units, follows=request.preset.batch_follows and not request.resume)
    preprocessing = Preprocessing.of(config, task)
    refuse_many(config, preprocessing, world)
    folds = make_folds(config, task, units, root)
    unfit(config, task, root)
    plan = plan_of(folds[0], preprocessing)
    if not request.resume:
        begin(folder, config, root, plan)
    world.first(lambda: shared(config, root), BEGUN)

    trainers: list[Trainer] = []
    as_loaded = task
    with contextlib.ExitStack() as stack:
        ledger = None
        if plan:
            opened = open_ledger(folder, plan)
            ledger = stack.enter_context(contextlib.closing(opened))
        try:
            labels = None
            if config.label_epsilon:
                task, labels = randomized(task, config, folder)
            task = preprocessing.carry_out(task, units, ledger, folder)
            if task is not as_loaded:
                folds = make_folds(config, task, units, root)
            folder.write_json("task.json", task.to_json())
            trainers = make_trainers(
                folds, task, root, preprocessing, ledger, folder, world, present.compiling
            )
            canaries = insert(config, trainers[0])
            for trainer in trainers:
                start(trainer)
            present.start(config, trainers[0], folder.path)
            for fold, trainer in zip(folds, trainers, strict=True):
                kind = "private" if config.dp else "non-private"
                name = kind if fold.name == "training" else f"{kind} {fold.name}"
                present.follow(name, trainer.run())
            twin = None
            if other := baseline_of(config, folds[0], task, root, world):
                present.follow("non-private baseline", other.run())
                twin = other.history
                rows = (record.to_json() for record in twin.epochs)
                folder.write_lines("private/twin-metrics.jsonl", rows)
            explained = explain(config, plan, folder, present)
        except KeyboardInterrupt:
            command = f"python -m dpsgd_torch.train {shlex.join(_go_on(request, folder))}"
            done = sum(trainer.done for trainer in trainers)
            raise KeyboardInterrupt(f"after step {done}; go on with {command}") from None
        last = next((t for t in trainers if t.ended), trainers[0])
        spent = last.privacy_spent() if plan else None
        promises = _promises(config, task, spent, last)
        audited = found_by(canaries, last, folder)
        events = None
        if spent and last.plan:
            events = priced_events(last.plan, last.ledger, watched=spent.watched)
        for trainer in trainers:
            assert trainer.folder
            trainer.write_results(trainer.folder, spent, keep_privacy=labels is not None)
    if config.validation == "selection" and (held_out := trainers[0].steering.held_out):
        score = {"sum": held_out.clipped_sum(trainers[0].model), "bound": held_out.asked.bound}
        folder.write_json("private/selection.json", score)
    stopped = next((t.stopped or t.ended for t in trainers if t.stopped or t.ended), "")
    history = averaged([t.history for t in trainers])
    predicted = predict([t.model for t in trainers], task, folder)
    if len(trainers) > 1:
        folder.write_lines("metrics.jsonl", (r.to_json() for r in history.epochs))
        folder.write_json("privacy.json", figures(spent))
    outcome = Outcome(folder.path, history, twin, spent, stopped, predicted, labels, audited)
    preset = PRESETS[config.preset]()
    words = statement(
        config,
        spent,
        plan=last.plan,
        claim=preset.claim,
        stopped=stopped,
        note=task.note,
        prior=" ".join(filter(None, (task.prior, preset.chosen))),
        has_baseline=twin is not None,
        labels=labels,
        audited=audited,
    )
    folder.write_text("statement.txt", words)
    machine = _machine(config, trainers[0], folder)
    write_report(
        folder,
        config,
        history,
        twin,
        spent,
        words,
        predicted,
        promises,
        labels,
        machine,
        events,
        audited,
        classify([t.model for t in trainers], trainers[0].test, task),
        explained,
        on_a_board(folder, config),
    )
    world.exchange(TOLD)
    present.end(outcome)
    return outcome


def _machine(config: RunConfig, trainer: Trainer, folder: RunFolder) -> list[tuple[str, str]]:
    """Where the first model was trained, and how fast, by whoever took its last steps."""
    speed = trainer.state.speed
    if speed and speed.took_steps:
        told = [*speed.told(), ("precision", config.precision)]
        folder.write_json(_MACHINE, told)
        return told
    known = (folder.path / _MACHINE).exists()
    return [(str(name), str(value)) for name, value in folder.read_json(_MACHINE)] if known else []


def _promises(
    config: RunConfig, task: Task, spent: PrivacyGuarantee | None, trainer: Trainer
) -> Promises | None:
    """For data whose rows belong to someone: what row and unit are promised, side by side."""
    unit = next((name for name in (config.privacy_unit, *task.units) if name != "record"), None)
    if spent is None or trainer.plan is None or unit is None:
        return None
    if isinstance(trainer.plan.sampling, CyclicPoisson):
        return None  # rows of one unit lie in several parts: no analysis of such groups is known
    events = priced_events(trainer.plan, trainer.ledger, watched=spent.watched)
    return Promises.of(spent, events, unit)


def _go_on(request: Request, folder: RunFolder) -> list[str]:
    words = ["--resume", str(folder.path)]
    words += ["--data-dir", str(request.data_dir)] if request.data_dir else []
    return words + (["--partial", request.partial] if request.partial != "refuse" else [])


def _fresh_name(preset: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{preset}-{stamp}"
