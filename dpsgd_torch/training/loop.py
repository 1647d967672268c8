"""The loop: sample → reserve → clip + noise → settle → checkpoint, read from top to bottom."""

from __future__ import annotations

import contextlib
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
from dpsgd_torch.training.agreement import agree_on_checkpoint
from dpsgd_torch.training.evaluation import evaluate
from dpsgd_torch.training.feed import Feed, feeding
from dpsgd_torch.training.history import EpochRecord, PrivateRecord, summed
from dpsgd_torch.training.keeping import keep
from dpsgd_torch.training.movement import Movement
from dpsgd_torch.training.speed import Speed
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.steps import Draw, PlainStep, PrivateStep, StepRecord


@dataclass(frozen=True)
class Progress:
    """Where the run stands: yielded after every step, with the epoch's record at its end."""

    step: int
    steps: int
    epoch: int
    epsilon: float | None
    record: EpochRecord | None = None
    examples_per_second: float | None = None  # expected ones, over all processes; to two digits
    peak_memory: int = 0  # MiB


class _Meter:
    """ε so far, priced anew once in a while: a bar need not know it at every step.

    It takes a hundredth of the time at most, on rank 0 alone, whose figure the others show a step
    later: else all would wait for each in turn.
    """

    def __init__(self, run: RunState) -> None:
        self._ledger = run.charges.ledger if run.plan else None
        self._prices = run.world.is_first
        self.shown: float | None = None
        self._due = 0.0

    @property
    def _is_due(self) -> bool:
        return self._prices and time.monotonic() > self._due

    def read(self, record: EpochRecord | None) -> float | None:
        if record:
            self.shown = record.epsilon
        elif self._ledger and (self.shown is None or self._is_due):
            started = time.monotonic()
            self.shown = self._ledger.epsilon(width=1e-4)
            self._due = time.monotonic() + max(1.0, 100 * (time.monotonic() - started))
        return self.shown


class Steps:
    """The steps of a run that are left, one at a time, by whoever drives them.

    Each is reserved, taken within ``charged``, settled and kept; ``end`` follows the last.

    Args:
        feed: the rows that the steps take, the first of each before it is charged.
    """

    def __init__(self, run: RunState, feed: Feed) -> None:
        self._run, self._feed = run, feed
        self._ends = epoch_ends(run.sampling)
        self._private, self._meter = PrivateRecord(), _Meter(run)
        self._movement = Movement(run.watched) if run.plan else None
        self._on_record: int | None = None
        self._record: EpochRecord | None = None
        self._speed = run.speed = Speed(run.sampling.batch_size, run.world, run.device)

    @property
    def plan(self) -> StepPlan:
        """What the step at hand does."""
        run = self._run
        return run.step_plan(run.done) if run.plan else StepPlan(0.0, 0.0)

    @property
    def epoch(self) -> int:
        """The epoch of the step at hand, counted from 1."""
        return next(e for e, end in enumerate(self._ends, 1) if self._run.done < end)

    def reserve(self) -> bool:
        """Charge the next step; False where there is none, or what was seen or spent ends it."""
        run, step = self._run, self._run.done
        if step >= run.sampling.steps or run.stopped:
            return False
        if run.steering.early_stopping.stops(run.history.scores):
            run.ended = (
                f"no better validation score in {run.steering.early_stopping.patience} epochs"
            )
            return False
        run.steering.rates.refuse_others()
        self._feed.ready(step)
        self._on_record = None
        run.world.agree("a step", step=step)  # nothing was charged for it, and all have its rows
        if run.plan:
            try:
                event = run.plan.event(step, run.charges.ledger.first_step)
                # durable, and known to all, before anyone draws
                self._on_record, self._meter.shown = run.world.first(
                    lambda: (run.charges.reserve(step, event), self._meter.shown)
                )
                if not run.world.is_first:
                    run.charges.reserve(step, event)
            except BudgetExceeded as reason:
                run.stopped = str(reason)
                return False
        return True

    @contextlib.contextmanager
    def charged(self) -> Iterator[None]:
        """Around all that a charged step draws and runs."""
        run, step = self._run, self._run.done
        run.torn = True
        run.modes.restore()
        run.steering.set_rates(step, run.history.scores)
        with (
            run.streams.model_rng(
                attempt=run.attempt, step=step, device=run.device, rank=run.world.rank
            ),
            within_charged_step(run.model, step, lambda: _charged(run)),
        ):
            yield

    def draw(self) -> Draw:
        """Who is in the batch of the step at hand, and the stream of its noise."""
        return _draw(self._run, self._run.done, self._feed)

    def took(self, record: StepRecord) -> None:
        """See what a step has moved, before it is settled."""
        run, step = self._run, self._run.done
        self._private.add(record)
        if self._movement and self.plan.noise_multiplier > 0:
            self._movement.check(run.watched, run.optimizer, partial(_rates_rise, run, step))

    def settle(self) -> None:
        """Put on record what the step released, and the epoch where it ends there."""
        run, epoch = self._run, self.epoch
        checksum = run.accept()
        run.world.agree(f"step {run.done}", weights=checksum)
        if run.plan:
            run.charges.settle(run.done, checksum, self._on_record)
        run.done, run.torn, self._record = run.done + 1, False, None
        run.steering.stepped()
        if run.average:
            run.average.update(run.model, run.done - 1, run.sampling.steps)
        if run.done == self._ends[epoch - 1]:
            try:
                with run.averaged():
                    score = run.steering.validate(
                        run.model,
                        run.streams,
                        run.sampling.steps + epoch,
                        run.charges if run.plan else None,
                        run.world,
                        keyed=run.keyed,
                        whole=run.of_whole_model if run.is_apart else None,
                    )
            except BudgetExceeded as reason:
                run.stopped, score = str(reason), None
            self._record = _end_epoch(run, epoch, self._private, score)
            self._private = PrivateRecord()
        self._settled = epoch

    def keep(self) -> None:
        """Write a checkpoint where one is due, once all ranks agree on what is in it."""
        run = self._run
        if self._record or run.done % run.checkpoint_every == 0:
            agree_on_checkpoint(run)
            if run.keeps:
                keep(run)

    def reached(self) -> Progress:
        """Where the run stands after the step that was settled last."""
        run, record = self._run, self._record
        epsilon, speed = self._meter.read(record), self._speed
        speed.stepped()
        rate, memory = speed.examples_per_second, speed.peak_memory
        return Progress(run.done, run.sampling.steps, self._settled, epsilon, record, rate, memory)

    def stopped(self) -> Progress | None:
        """Of an epoch inside which the budget ended the run; None where it did not."""
        run = self._run
        if not (run.stopped and self._private.batches):
            return None
        epoch = len(run.history.epochs) + 1
        record = _end_epoch(run, epoch, self._private, None)
        agree_on_checkpoint(run)
        if run.keeps:
            keep(run)
        return Progress(run.done, run.sampling.steps, epoch, record.epsilon, record)

    def end(self) -> None:
        """Leave the model as it is to be handed on."""
        run = self._run
        run.refuse_changed_state()
        if run.average:
            run.average.put_in_place(run.model)
        run.steering.restore(run.model, run.folder, run.history.scores)
        run.world.exchange("the last weights")
        if not run.world.is_alone and run.steering.early_stopping.keep_best:
            run.world.hand_round(list(run.model.state_dict().values()))
        run.world.agree("the end", weights=run.accept())


def train(run: RunState, take: PlainStep | PrivateStep) -> Iterator[Progress]:
    """Take the steps that are left, each charged before its noise is drawn."""
    with feeding(run) as feed:
        steps = Steps(run, feed)
        while steps.reserve():
            with steps.charged():
                steps.took(take(feed, steps.plan, steps.draw()))
            steps.settle()
            steps.keep()
            yield steps.reached()
        if last := steps.stopped():
            yield last
        steps.end()


def epoch_ends(sampling: Sampler) -> list[int]:
    """The step at which each epoch ends, the last one at the end of the run."""
    n, batch = sampling.dataset_size, sampling.batch_size
    ends: list[int] = []
    while not ends or ends[-1] < sampling.steps:
        full = dpsgd_steps(dataset_size=n, batch_size=batch, epochs=len(ends) + 1)
        ends.append(min(full, sampling.steps))
    return ends


def _rates_rise(run: RunState, step: int) -> bool:
    return run.steering.rates.rise(step, run.sampling.steps)


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
    batch = feed.share(batch)
    return Draw(batch.rows, batch.slots, noise, batch.weights)


def _tested(run: RunState) -> dict[str, float]:
    """Scores of the test set: taken by all ranks, or of a model in parts by rank 0."""
    if run.is_apart:
        return run.first_with_model(
            lambda: evaluate(run.model, run.scores, run.test), "the test set"
        )
    return evaluate(run.model, run.scores, run.test, run.world)


def _end_epoch(
    run: RunState, epoch: int, private: PrivateRecord, score: float | None
) -> EpochRecord:
    epsilon = run.charges.ledger.epsilon() if run.plan else None
    with run.averaged():
        record = EpochRecord(
            epoch=epoch, step=run.done, epsilon=epsilon, test=_tested(run), validation=score
        )
    run.history.epochs.append(record)
    private = summed(run.world.exchange("an epoch's record", private.parts()))
    run.history.private.append(private.to_json(epoch))
    if score is not None:
        with run.averaged():
            kept = run.steering.keep(run.model, run.folder, run.history.scores)
            if kept and run.average:
                run.average.best_is_average = run.average.is_in_place
    if run.folder:
        run.write_metrics(run.folder)
    return record
