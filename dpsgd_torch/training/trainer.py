"""Train a model of one's own privately: build, fit, ask what it cost, save."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accountant import Event, Ledger, dpsgd_steps
from dpsgd_torch.errors import GuaranteeBroken, RunError
from dpsgd_torch.plan import Sampling
from dpsgd_torch.privacy import Privacy
from dpsgd_torch.schedules import Schedule
from dpsgd_torch.spent import PrivacySpent, figures, privacy_spent
from dpsgd_torch.training import validation as validate
from dpsgd_torch.training.checkpoint import load_checkpoint
from dpsgd_torch.training.contract import contract, digest, environment
from dpsgd_torch.training.engines import choose, likely_rows, per_example_gradients
from dpsgd_torch.training.for_export import save_for_export
from dpsgd_torch.training.held_out import HeldOut, Validation
from dpsgd_torch.training.history import History
from dpsgd_torch.training.loop import Progress, epoch_ends, train
from dpsgd_torch.training.losses import Loss, per_example
from dpsgd_torch.training.private_optimizer import PrivateOptimizer, refuse_long_sums
from dpsgd_torch.training.rehearsal.tried import try_all
from dpsgd_torch.training.released_state import ReleaseGuard, released_tensors
from dpsgd_torch.training.resumption import refuse_old_copy, streams_of, take_up, write_beginning
from dpsgd_torch.training.run_folder import RunFolder, write_durably
from dpsgd_torch.training.sealed import tensors_to_bytes
from dpsgd_torch.training.steering import Steering, validation_events
from dpsgd_torch.training.steps import PlainStep, PrivateStep
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.tensors import pair_on, units_of
from dpsgd_torch.training.together import refuse_unfit
from dpsgd_torch.training.watch import Watch

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Trainer:
    """DP-SGD on in-memory tensors [Abadi et al. 2016, Algorithm 1].

    * Guarantee: the weights after any step are (ε, δ)-differentially private under add/remove of
      one record, with ε as ``privacy_spent`` says, whoever sees them.
    * Sampling, clip, noise and step count come from one plan, which is also what is charged.

    Args:
        model: any module without batch statistics; trained in place.
        loss: (outputs, targets) → loss; a torch loss, or one value per example.
        train_tensors: inputs and targets, first dimension the n records.
        privacy: the promise to keep, or None to train without one.
        batch_size: expected batch size; the sampling rate is batch_size / n.
        epochs: passes over the data, in expectation.
        optimizer: a torch optimizer over the model's parameters, or a function that makes one
            from them, e.g. ``lambda p: torch.optim.SGD(p, lr=0.25)``.
        test_tensors: public inputs and targets to report on at each epoch, or None.
        metrics: name → function (outputs, targets) → one value per example.
        units: the id of the person, drug, … each record belongs to, whole numbers (n,), for a
            guarantee to them (``Privacy.unit`` names them); None protects each record by itself.
        rows_per_unit: with ``units``, so many of a unit's records at most are averaged in a step.
        run_dir: a new or empty folder for ledger, checkpoints and results; None keeps everything
            in memory until ``save``.
        physical_batch_size: examples whose gradients are held at once; bounds memory only.
        checkpoint_every: steps between checkpoints, besides one at each epoch's end.
        gradients: "hooks" for Opacus's per-example gradients, "ghost" for closed forms, which
            models of linear and normalising layers have and which store none; "auto" takes these
            where they exist.
        rate_schedule: by which the optimizer's learning rates are multiplied, step by step.
        validation: rows kept out of training, scored after each epoch.
        watch: what those scores decide: stop, slow down, keep the best epoch.
        ledger: the ledger, or part of one, that others charge too; it stays open when this run
            ends. None opens ``run_dir``'s own.
        device: where to train; on the CPU an interrupted run repeats bit for bit.
        seed: makes the run reproducible, also for an attacker who knows it: noise from a
            published seed protects nobody. None draws 256 bits from the operating system.

    Raises:
        InvalidValue, ModelError, DataError, RunError: before anything is charged.

    >>> inputs, targets = torch.rand(64, 5), torch.randint(2, (64,))
    >>> trainer = Trainer(
    ...     nn.Linear(5, 2), nn.CrossEntropyLoss(), (inputs, targets),
    ...     privacy=Privacy(epsilon=3, delta=1e-3, clip_norm=1.0), batch_size=16, epochs=2,
    ...     optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    >>> trainer.fit().privacy_spent().epsilon <= 3
    True
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        train_tensors: Sequence[torch.Tensor],
        *,
        privacy: Privacy | None,
        batch_size: int,
        epochs: float,
        optimizer: torch.optim.Optimizer | OptimizerFactory,
        test_tensors: Sequence[torch.Tensor] | None = None,
        metrics: Mapping[str, Loss] | None = None,
        units: Any = None,
        rows_per_unit: int | None = None,
        run_dir: str | os.PathLike[str] | RunFolder | None = None,
        physical_batch_size: int = 128,
        checkpoint_every: int = 100,
        gradients: str = "auto",
        rate_schedule: Schedule | None = None,
        validation: Validation | None = None,
        watch: Watch | None = None,
        ledger: Ledger | None = None,
        device: str | torch.device = "cpu",
        seed: int | None = None,
    ) -> None:
        refuse_unfit(
            privacy,
            units,
            rows_per_unit,
            validation,
            physical_batch_size=physical_batch_size,
            checkpoint_every=checkpoint_every,
            seed=seed,
        )
        self.data = pair_on(device, train_tensors, "train_tensors")
        test = None if test_tensors is None else pair_on(device, test_tensors, "test_tensors")
        self.device, self.resumed = torch.device(device), False
        self.units = None if units is None else units_of(units, len(self.data[0]))
        declared = (privacy and privacy.dataset_size) or len(self.units or self.data[0])
        self.sampling = Sampling(
            dataset_size=declared,
            batch_size=batch_size,
            microbatch_size=privacy.microbatch_size if privacy else 1,
            steps=dpsgd_steps(dataset_size=declared, batch_size=batch_size, epochs=epochs),
            unit=privacy.unit if privacy else "record",
            rows_per_unit=rows_per_unit,
        )
        self.unit_digest = "" if units is None else digest([torch.as_tensor(units)])
        also = validation_events(validation, len(epoch_ends(self.sampling)))
        self.privacy, self.plan = privacy, privacy.plan(self.sampling, also) if privacy else None
        self.gradients = "none"
        self.streams = Streams() if seed is None else Streams(seed)
        self.test, self.given_loss, self.loss = test, loss, per_example(loss)
        given = {name: per_example(metric, "metric") for name, metric in (metrics or {}).items()}
        self.scores = {"loss": self.loss, **given}
        self.history, self.done, self.stopped, self.ended = History(), 0, "", ""
        self.torn, self.broken = False, ""
        self._spent: PrivacySpent | None = None
        self.folder = run_dir if isinstance(run_dir, RunFolder | None) else RunFolder(Path(run_dir))
        self._begun = isinstance(run_dir, RunFolder)
        self.physical_batch_size, self.checkpoint_every = physical_batch_size, checkpoint_every

        self.model = model.to(self.device).train()
        self.guard = ReleaseGuard(self.model, watching=privacy is not None)
        trainable = validate.trainable_parameters(self.model)
        made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer(trainable)
        self.optimizer: torch.optim.Optimizer = made
        validate.refuse_unreachable(self.model, self.optimizer)
        held_out = HeldOut(validation, self.loss, self.device) if validation else None
        self.steering = Steering(self.optimizer, rate_schedule, held_out, watch)
        self._shared_ledger = ledger
        if self.plan:
            refuse_long_sums(batch_size, physical_batch_size)
            validate.refuse_without_float64(self.device)
            validate.refuse_mixing_layers(self.model)
            size = min(physical_batch_size, likely_rows(self.sampling))
            self.gradients = choose(gradients, self.model, self.loss, self.data, size)
            try_all(self, held_out, size)

    def fit(self) -> Trainer:
        """Run all steps that are left; returns the trainer itself."""
        for _ in self.run():
            pass
        return self

    def run(self) -> Iterator[Progress]:
        """Run step by step, yielding what was reached, for whoever shows progress."""
        self._refuse_broken()
        if not hasattr(self, "attempt"):
            self.open()
        self.refuse_changed_state()
        self.guard.begin()
        if self.torn:  # a step was left half done: what it drew is charged and never drawn again
            self._begin_attempt(repeatable=False)
        if not self.plan:
            self.step: PlainStep | PrivateStep = PlainStep(
                self.model,
                self.loss,
                self.optimizer,
                slots=self.sampling.microbatches,
                physical_batch_size=self.physical_batch_size,
            )
            yield from train(self)
            return
        with per_example_gradients(self.model, self.gradients) as wrapped:
            self.step = PrivateStep(
                wrapped,
                self.loss,
                PrivateOptimizer(self.optimizer, microbatches=self.sampling.microbatches),
                physical_batch_size=self.physical_batch_size,
                before_release=self._before_release,
            )
            yield from train(self)

    def resume(self) -> Trainer:
        """Take up the run in ``run_dir`` at its last checkpoint.

        Raises:
            RunError: no run is there, its contract differs, or its checkpoint is damaged.
        """
        if self.folder is None:
            raise RunError("run_dir = None: nothing was kept to resume from; pass run_dir")
        take_up(self, self.folder)
        done, charges, history = load_checkpoint(
            self.folder.checkpoints, self.model, self.optimizer
        )
        self.guard.accept()
        self.done, self.history, self.resumed = done, history, True
        self._open_ledger(resumed=True)
        if self.plan:
            refuse_old_copy(self.ledger, self.folder, done, charges)
        return self

    def privacy_spent(self) -> PrivacySpent:
        """What has been spent so far, by both accountants.

        Raises:
            RunError: the trainer has no privacy to speak of, or has not started.
        """
        if self.plan is None or not hasattr(self, "ledger"):
            raise RunError("privacy: nothing was charged; pass privacy=… and fit first")
        self._refuse_broken()
        priced, watched = len(self.ledger), bool(self.ended)
        known = self._spent
        if known is None or (known.charges, known.watched) != (priced, watched):
            self._spent = known = privacy_spent(self.plan, self.ledger, watched=watched)
        return known

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        input_range: tuple[float, float] | None = None,
        labels: Sequence[str] = (),
        output: str = "logits",
    ) -> Path:
        """Write weights, metrics, ledger and privacy.json; returns the folder.

        Where ``path`` is taken, a numbered folder beside it is used and a warning says so. To be
        exported it needs ``input_range``: (low, high) of every input value, declared in public.
        """
        folder = RunFolder(Path(path))
        spent = self.privacy_spent() if self.plan else None
        if self.folder is None or folder.path.resolve() != self.folder.path.resolve():
            folder = folder.free()
            folder.create()
            if self.plan:
                self.ledger.copy_to(folder.ledger)
        self.write_results(folder, spent)
        declared = (self.data[0].shape[1:], input_range, labels, output)
        save_for_export(folder, self.model, spent.unit if spent else None, *declared)
        return folder.path

    def write_results(
        self, folder: RunFolder, spent: PrivacySpent | None, *, keep_privacy: bool = False
    ) -> None:
        """Weights, metrics and (unless another's is to be kept) privacy.json, atomically."""
        self.refuse_changed_state()
        self.write_metrics(folder)
        content = tensors_to_bytes(released_tensors(self.model))
        write_durably(folder.path / "model.safetensors", content)
        if not keep_privacy:
            folder.write_json("privacy.json", figures(spent))

    def refuse_changed_state(self) -> None:
        """Stop for good where the model holds what the last step did not leave."""
        try:
            self.guard.check(self.done)
        except GuaranteeBroken as error:
            self.broken = str(error)
            raise

    def _before_release(self) -> None:
        self.refuse_changed_state()
        self.guard.expect_step()

    def close(self) -> None:
        """Let go of the ledger's file, so that another process may resume the run."""
        if hasattr(self, "ledger") and self._shared_ledger is None:
            self.ledger.close()

    def write_metrics(self, folder: RunFolder) -> None:
        """The epochs so far, public and private parts apart."""
        folder.write_lines("metrics.jsonl", (r.to_json() for r in self.history.epochs))
        folder.write_lines("private/metrics.jsonl", self.history.private)

    def open(self) -> None:
        """Create the run folder and the ledger; ``run`` does so unless it was done."""
        asked = contract(self)
        self.streams = streams_of(self, asked)
        own = None if self._begun else self.folder
        with own.beginning() if own else contextlib.nullcontext():
            write_beginning(self, asked)
            self._open_ledger(resumed=False)

    def _open_ledger(self, *, resumed: bool) -> None:
        if self.plan and self._shared_ledger is not None:
            self.ledger = self._shared_ledger
        elif self.plan:
            path, plan = self.folder.ledger if self.folder else None, self.plan
            planned = plan.events() if plan.budget else None
            self.ledger = Ledger(
                path, delta=plan.delta, budget=plan.budget, planned=planned, resumed=resumed
            )
        self._begin_attempt(repeatable=self.device.type == "cpu")

    def _begin_attempt(self, *, repeatable: bool) -> None:
        self.attempt = 0
        if self.plan:
            self.attempt = self.ledger.begin(
                first_step=self.done, environment=environment(self.device), repeatable=repeatable
            )
        self.torn = False

    def charge(self, step: int, event: Event) -> int | None:
        """Reserve a step, or find that this attempt has; returns the checksum then on record."""
        if self.ledger.is_charged(step):
            return self.ledger.repeat(step, event)
        self.ledger.reserve(step, event)
        return None

    def settle(self, step: int, checksum: int, on_record: int | None) -> None:
        """Put on record what came out, or see that a repetition gave the same."""
        if on_record is None:
            self.ledger.settle(step, checksum)
        elif on_record != checksum:
            self.ledger.end_attempt()
            self.broken = (
                f"step {step}: its repetition gave other weights than are on record, so the same "
                "noise met other gradients; this trainer releases nothing: resume once more, with "
                "fresh noise"
            )
            raise GuaranteeBroken(self.broken)

    def _refuse_broken(self) -> None:
        if self.broken:
            raise GuaranteeBroken(self.broken)
