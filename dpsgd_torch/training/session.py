"""A run from its opening to what it leaves behind: what every face of training stands on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accountant import Ledger
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients import model_checks as validate
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.precision import refuse_open_autocast
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee, figures, privacy_spent
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.storage.run_folder import RunFolder, write_durably
from dpsgd_torch.storage.sealed import tensors_to_bytes
from dpsgd_torch.training.agreement import agree_on_all, copied_ledger
from dpsgd_torch.training.extension import extend
from dpsgd_torch.training.filled import FilledPasses
from dpsgd_torch.training.fingerprint import contract, environment, told_to_repeat
from dpsgd_torch.training.for_export import save_for_export
from dpsgd_torch.training.keeping import put_back
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.released_state import released_tensors
from dpsgd_torch.training.resumption import (
    read_begun,
    refuse_old_copy,
    streams_of,
    take_up,
    write_beginning,
)
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.steps import PlainStep, PrivateStep


class Session:
    """Opens or resumes a run, says how its steps are taken, what they cost, and saves.

    Args:
        begun: whoever made the run's folder began it already.
        ledger: one that others charge too and close; None opens the folder's.
    """

    def __init__(self, state: RunState, *, begun: bool, ledger: Ledger | None) -> None:
        self.state = state
        self._begun, self._shared_ledger = begun, ledger
        self._spent: PrivacyGuarantee | None = None

    def open(self) -> None:
        """Create the run folder and the ledger."""
        with self.state.world.together():
            self._open()

    def _open(self) -> None:
        run = self.state
        run.steering.rates.begin()
        asked = contract(run)
        run.streams = streams_of(run, asked)
        agree_on_all(run, asked)
        run.keeps = run.world.first(lambda: run.folder is not None, "whether it is kept")
        own = None if self._begun else run.folder
        with own.beginning() if own else contextlib.nullcontext():
            write_beginning(run, asked)
            self._open_ledger(resumed=False)

    def extend(self, epochs: float) -> None:
        """Plan more epochs, once all that were planned are done.

        Raises:
            RunError: the budget, or the plan, leaves no room.
        """
        extend(self.state, epochs, shared=self._shared_ledger is not None)

    def resume(self) -> None:
        """Take up the run in the folder at its last checkpoint.

        Raises:
            RunError: no run is there, its contract differs, or its checkpoint is damaged.
        """
        run = self.state
        run.keeps = True
        with run.world.together():
            if run.folder is None and run.world.is_first:
                raise RunError("run_dir = None: nothing was kept to resume from; pass run_dir")
            self._resume(run, run.folder)

    def _resume(self, run: RunState, folder: RunFolder | None) -> None:
        take_up(run, run.world.first(lambda: read_begun(_own(folder)), "what the run began with"))
        run.steering.rates.begin()
        done, charges, history = put_back(run)
        run.steering.rates.left()
        run.guard.accept()
        run.done, run.history, run.resumed = done, history, True
        agree_on_all(run, contract(run))
        self._open_ledger(resumed=True)
        if run.plan and folder:
            refuse_old_copy(run.charges.ledger, folder, done, charges)

    @contextlib.contextmanager
    def stepping(self) -> Iterator[PlainStep | PrivateStep]:
        """How each step is taken, for as long as some are: opens the run where nobody did."""
        with self.state.world.together(), self._stepping() as take:
            yield take

    @contextlib.contextmanager
    def _stepping(self) -> Iterator[PlainStep | PrivateStep]:
        run = self.state
        run.charges.refuse_broken()
        refuse_open_autocast(run.device)
        if not run.charges.are_open:
            if run.shards is None:
                validate.refuse_unreachable(run.model, run.optimizer)
            self.open()
        run.refuse_changed_state()
        if run.average and run.average.is_in_place:  # training goes on from the last weights
            run.average.put_back(run.model)
            run.guard.accept()
        run.guard.begin()
        with run.apart():
            yield from self._taking(run)

    def _taking(self, run: RunState) -> Iterator[PlainStep | PrivateStep]:
        if run.torn:  # a step was left half done: what it drew is charged and never drawn again
            run.begin_attempt(environment=self._environment(), repeatable=False)
        run.world.agree("the first step", step=run.done, attempt=run.attempt)
        if not run.plan:
            yield PlainStep(
                run.model,
                run.loss,
                run.optimizer,
                slots=run.sampling.microbatches,
                physical_batch_size=run.physical_batch_size,
                world=run.world,
                forward=run.forward,
                loss_scale=run.precision.loss_scale,
            )
            return
        method, scale = run.method, run.precision.loss_scale
        given = (run.forward, scale, method.program, run.each_alone)
        with per_example_gradients(run.model, method.kind, method.layouts, *given) as wrapped:
            secure = run.plan.noise.secure
            yield PrivateStep(
                FilledPasses(wrapped, run.at_once) if secure else wrapped,
                run.loss,
                PrivateOptimizer(
                    run.optimizer,
                    microbatches=run.sampling.microbatches,
                    noise=run.plan.noise,
                    state=run.noise_state,
                    keyed=run.keyed or bool(run.heard),
                    world=run.world,
                    shards=run.shards,
                    inserted=run.inserted,
                    clipping=run.plan.clipping,
                    groups=run.groups,
                    followed=run.followed,
                ),
                physical_batch_size=run.at_once,
                before_release=run.before_release,
                around=run.around_passes,
            )

    def privacy_spent(self) -> PrivacyGuarantee:
        """What has been spent so far, by both accountants.

        Raises:
            RunError: the run has no privacy to speak of, or has not started.
        """
        run = self.state
        if run.plan is None or not run.charges.has_ledger:
            raise RunError("privacy: nothing was charged; pass privacy=… and fit first")
        run.charges.refuse_broken()
        now = len(run.charges.ledger), bool(run.ended), run.extended
        known = self._spent
        if known is None or (known.charges, known.watched, known.extended) != now:
            self._spent = known = privacy_spent(
                run.plan, run.charges.ledger, watched=bool(run.ended), extended=run.extended
            )
        return known

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        input_range: tuple[float, float] | None,
        labels: Sequence[str],
        output: str,
    ) -> Path:
        """Write weights, metrics, ledger and privacy.json; returns the folder."""
        run, folder = self.state, RunFolder(Path(path))
        if not run.world.is_first:
            return folder.path
        spent = self.privacy_spent() if run.plan else None
        if run.folder is None or folder.path.resolve() != run.folder.path.resolve():
            (folder := folder.free()).create()
            if run.plan:
                run.charges.ledger.copy_to(folder.ledger)
        self.write_results(folder, spent)
        inputs, unit = run.data.schema.inputs, spent.unit if spent else None
        save_for_export(folder, run.model, unit, inputs, input_range, labels, output)
        return folder.path

    def write_results(
        self, folder: RunFolder, spent: PrivacyGuarantee | None, *, keep_privacy: bool = False
    ) -> None:
        """Weights, metrics and (unless another's is to be kept) privacy.json, atomically."""
        if not self.state.world.is_first:
            return
        self.state.refuse_changed_state()
        self.state.write_metrics(folder)
        content = tensors_to_bytes(released_tensors(self.state.model))
        write_durably(folder.path / "model.safetensors", content)
        if not keep_privacy:
            audited: dict[str, object] = {}
            if (inserted := self.state.inserted) and spent:
                told = inserted.figures(spent)
                audited = {"audit": inserted.describe(), "audit_outside": told}
            if self.state.followed and spent:
                audited["clip_norm_at_end"] = self.state.followed.clip_norm
            if self.state.precision.is_mixed:
                audited["precision"] = str(self.state.precision)
            if self.state.average:
                audited["weights"] = self.state.average.told()
            folder.write_json("privacy.json", {**figures(spent), **audited})

    def close(self) -> None:
        """Let go of the ledger's file, so that another process may resume the run."""
        if self.state.charges.has_ledger and self._shared_ledger is None:
            self.state.charges.ledger.close()

    def _open_ledger(self, *, resumed: bool) -> None:
        run = self.state
        if run.plan:
            rows, part = run.world.first(lambda: self._own_ledger(run, run.plan, resumed))
            if not run.world.is_first:
                run.charges.open(copied_ledger(run.plan, rows, part))
        repeatable = run.device.type == "cpu" or told_to_repeat()
        run.begin_attempt(environment=self._environment(), repeatable=repeatable)

    def _own_ledger(self, run: RunState, plan: PrivacyPlan | None, resumed: bool) -> list[Any]:
        """Open the ledger that counts; returns what others copy of it."""
        assert plan
        ledger = self._shared_ledger
        if ledger is None:
            path = run.folder.ledger if run.folder else None
            ledger = plan.open_ledger(path, resumed=resumed)
        run.charges.open(ledger)
        return [None, ""] if run.world.is_alone else [ledger.rows(), ledger.name]

    def _environment(self) -> str:
        run = self.state
        where, size = environment(run.device, run.method.kind), run.world.size
        # sums are added up in another order by another number of them
        parts = " in parts" if run.shards else ""
        return where if size == 1 else f"{where}, {size} processes{parts}"


def _own(folder: RunFolder | None) -> RunFolder:
    assert folder  # rank 0 has one
    return folder
