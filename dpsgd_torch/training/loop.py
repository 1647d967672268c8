"""The loop: sample → reserve → clip + noise → settle → checkpoint, read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from accountant import BudgetExceeded, dpsgd_steps
from accountant.statement import round_up
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.gradients.blame import within_charged_step
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.checkpoint import save_checkpoint
from dpsgd_torch.training.evaluation import evaluate
from dpsgd_torch.training.feed import Feed, feeding
from dpsgd_torch.training.history import EpochRecord, PrivateRecord
from dpsgd_torch.training.movement import Movement
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.steps import Draw, PlainStep, PrivateStep


@dataclass(frozen=True)
class Progress:
    """Where the run stands: yielded after every step, with the epoch's record at its end."""

    step: int
    steps: int
    epoch: int
    epsilon: float | None
    record: EpochRecord | None = None


class _Meter:
    """ε so far, priced anew once in a while: a bar need not know it at every step."""

    def __init__(self, run: RunState) -> None:
        self._ledger = run.charges.ledger if run.plan else None
        self._shown: float | None = None
        self._due = 0.0

    def read(self, record: EpochRecord | None) -> float | None:
        if record:
            self._shown = record.epsilon
        elif self._ledger and time.monotonic() > self._due:
            started = time.monotonic()
            self._shown = self._ledger.epsilon(width=1e-4)
            self._due = time.monotonic() + max(1.0, 30 * (time.monotonic() - started))
        return self._shown


def train(run: RunState, take: PlainStep | PrivateStep) -> Iterator[Progress]:
    """Take the steps that are left, each charged before its noise is drawn."""
    with feeding(run) as feed:
        yield from _steps(run, take, feed)


def _steps(run: RunState, take: PlainStep | PrivateStep, feed: Feed) -> Iterator[Progress]:
    ends = epoch_ends(run.sampling)
    private, meter = PrivateRecord(), _Meter(run)
    movement = Movement(run.model) if run.plan else None
    for step in range(run.done, run.sampling.steps):
        if run.callbacks.early_stopping.stops(run.history.scores):
            run.ended = (
                f"no better validation score in {run.callbacks.early_stopping.patience} epochs"
            )
            break
        epoch = next(e for e, end in enumerate(ends, 1) if step < end)
        feed.ready(step)
        on_record = None
        if run.plan:
            try:
                event = run.plan.event(step, run.charges.ledger.first_step)
                on_record = run.charges.reserve(step, event)
            except BudgetExceeded as reason:
                run.stopped = str(reason)
                break

        run.torn = True
        run.modes.restore()
        run.callbacks.set_rates(step, run.history.scores)
        plan = run.plan.step(step) if run.plan else StepPlan(0.0, 0.0)
        with (
            run.streams.model_rng(attempt=run.attempt, step=step, device=run.device),
            within_charged_step(run.model, step, lambda: _charged(run)),
        ):
            private.add(take(feed, plan, _draw(run, step, feed)))
            if movement and plan.noise_multiplier > 0:
                movement.check(run.model, run.optimizer, partial(_rates_rise, run, step))

        if run.plan:
            run.charges.settle(step, run.guard.accept(), on_record)
        run.done, run.torn = step + 1, False
        record = None
        if run.done == ends[epoch - 1]:
            try:
                charges = run.charges if run.plan else None
                score = run.callbacks.validate(
                    run.model, run.streams, run.sampling.steps + epoch, charges
                )
            except BudgetExceeded as reason:
                run.stopped, score = str(reason), None
            record = _end_epoch(run, epoch, private, score)
            private = PrivateRecord()
        if run.folder and (record or run.done % run.checkpoint_every == 0):
            _keep(run, run.folder)
        yield Progress(run.done, run.sampling.steps, epoch, meter.read(record), record)
        if run.stopped:
            break

    if run.stopped and private.batches:  # the budget ended the run inside an epoch
        epoch = len(run.history.epochs) + 1
        record = _end_epoch(run, epoch, private, None)
        if run.folder:
            _keep(run, run.folder)
        yield Progress(run.done, run.sampling.steps, epoch, record.epsilon, record)
    run.refuse_changed_state()
    run.callbacks.restore(run.model, run.folder, run.history.scores)
    run.guard.accept()


def _keep(run: RunState, folder: RunFolder) -> None:
    """Write a checkpoint, of nothing that a step did not leave."""
    run.refuse_changed_state()
    held = len(run.charges.ledger) if run.plan else 0
    save_checkpoint(
        folder.checkpoints, run.done, run.model, run.optimizer, held, run.history, run.noise_state
    )


def epoch_ends(sampling: Sampler) -> list[int]:
    """The step at which each epoch ends, the last one at the end of the run."""
    n, batch = sampling.dataset_size, sampling.batch_size
    ends: list[int] = []
    while not ends or ends[-1] < sampling.steps:
        full = dpsgd_steps(dataset_size=n, batch_size=batch, epochs=len(ends) + 1)
        ends.append(min(full, sampling.steps))
    return ends


def _rates_rise(run: RunState, step: int) -> bool:
    return run.callbacks.rates_rise(step, run.sampling.steps)


def _charged(run: RunState) -> str:
    if not run.plan:
        return "mend it and begin again"
    spent = round_up(run.charges.ledger.epsilon(width=1e-4))
    return (
        f"the step's charge stands: ε = {spent} so far; a run in a folder resumes before it at no "
        "further cost, one in memory draws and pays it anew"
    )


def _draw(run: RunState, step: int, feed: Feed) -> Draw:
    batch = feed.draw(step)
    most = run.sampling.most() * (run.sampling.rows_per_unit or 1)
    if len(batch.rows) > most:
        raise GuaranteeBroken(
            f"batch of {len(batch.rows)} rows: a sampler of batch_size = {run.sampling.batch_size} "
            f"draws at most {most}; nothing was released: declare the batch size that it draws"
        )
    noise = run.streams.numpy("noise", attempt=run.attempt, step=step)
    return Draw(batch.rows, batch.slots, noise, batch.weights)


def _end_epoch(
    run: RunState, epoch: int, private: PrivateRecord, score: float | None
) -> EpochRecord:
    record = EpochRecord(
        epoch=epoch,
        step=run.done,
        epsilon=run.charges.ledger.epsilon() if run.plan else None,
        test=evaluate(run.model, run.scores, run.test),
        validation=score,
    )
    run.history.epochs.append(record)
    run.history.private.append(private.to_json(epoch))
    if score is not None:
        run.callbacks.keep(run.model, run.folder, run.history.scores)
    if run.folder:
        run.write_metrics(run.folder)
    return record
