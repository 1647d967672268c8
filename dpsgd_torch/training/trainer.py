"""Train a model of one's own privately: build, fit, ask what it cost, save."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accountant import Ledger
from dpsgd_torch.data.checked import data_on, units_of
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients import model_checks as validate
from dpsgd_torch.gradients.losses import Loss, per_example
from dpsgd_torch.gradients.methods import RENAMED, per_example_gradients
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee, figures, privacy_spent
from dpsgd_torch.privacy.privacy import Privacy, declared_sampler
from dpsgd_torch.renamed import renamed_arguments
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Schedule
from dpsgd_torch.storage.run_folder import RunFolder, write_durably
from dpsgd_torch.storage.sealed import tensors_to_bytes
from dpsgd_torch.training.arguments import refuse_unfit
from dpsgd_torch.training.callbacks import Callbacks, validation_events
from dpsgd_torch.training.checkpoint import load_checkpoint
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.fingerprint import contract, digest, environment
from dpsgd_torch.training.for_export import save_for_export
from dpsgd_torch.training.loop import Progress, epoch_ends, train
from dpsgd_torch.training.modes import TrainingModes
from dpsgd_torch.training.physical_size import AUTO, begun_with
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.rehearse import try_all
from dpsgd_torch.training.released_state import ReleaseGuard, released_tensors
from dpsgd_torch.training.resumption import refuse_old_copy, streams_of, take_up, write_beginning
from dpsgd_torch.training.state import RunState, Shown
from dpsgd_torch.training.steps import PlainStep, PrivateStep
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.validation import HeldOut, Validation

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Trainer:
    """DP-SGD on any data with random access [Abadi et al. 2016, Algorithm 1].

    * Guarantee: the weights after any step are (ε, δ)-differentially private under add/remove of
      one record, with ε as ``privacy_spent`` says, whoever sees them.
    * Sampling, clip, noise and step count come from one plan, which is also what is charged.

    Args:
        model: any module without batch statistics; trained in place. Modules put in ``eval()``
            stay so (a frozen batch norm), unless the model as a whole is: then all train.
        loss: (outputs, targets) → loss; a torch loss, or one value per example.
        train_tensors: inputs and targets of the n records, each a tensor, or a tuple, list or dict
            of tensors, with which the model is called; a torch ``Dataset``; a ``data.Data``.
        privacy: the promise to keep, or None to train without one.
        batch_size: expected batch size; the sampling rate is batch_size / n.
        epochs: passes over the data, in expectation.
        optimizer: one over the model's parameters, or ``lambda p: torch.optim.SGD(p, lr=0.25)``.
        test_tensors: public inputs and targets to report on at each epoch, or None.
        metrics: name → function (outputs, targets) → one value per example.
        units: the id of the person, drug, … each record belongs to, whole numbers (n,), for a
            guarantee to them (``Privacy.unit`` names them); None protects each record by itself.
        rows_per_unit: with ``units``, so many of a unit's records at most are averaged in a step.
        sampler: the kind of sampler, made from the numbers above; Poisson by default.
        run_dir: a new or empty folder for all that is kept; None: it is in memory until ``save``.
        physical_batch_size: examples whose gradients are held at once; bounds memory only.
        checkpoint_every: steps between checkpoints, besides one at each epoch's end.
        gradients: "graph" reads each example's off autograd's graph; "opacus" stores them by hooks
            on layers, Opacus's; "auto" is "graph", or what the run to ``resume`` began with.
        rate_schedule: by which the optimizer's learning rates are multiplied, step by step.
        validation: rows kept out of training, scored after each epoch.
        early_stopping: what those scores decide: stop, slow down, keep the best epoch.
        ledger: one, or a part of one, that others charge too and close; None opens ``run_dir``'s.
        device: where to train; on the CPU an interrupted run repeats bit for bit.
        seed: makes the run reproducible, also for an attacker who knows it: a published one
            protects nobody. None draws 256 bits from the operating system.

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

    @renamed_arguments({"gradients": RENAMED}, watch="early_stopping")
    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        train_tensors: Any,
        *,
        privacy: Privacy | None,
        batch_size: int,
        epochs: float,
        optimizer: torch.optim.Optimizer | OptimizerFactory,
        test_tensors: Any = None,
        metrics: Mapping[str, Loss] | None = None,
        units: Any = None,
        rows_per_unit: int | None = None,
        sampler: Callable[..., Sampler] = PoissonSampler,
        run_dir: str | os.PathLike[str] | RunFolder | None = None,
        physical_batch_size: int | str = AUTO,
        checkpoint_every: int = 100,
        gradients: str = "auto",
        rate_schedule: Schedule | None = None,
        validation: Validation | None = None,
        early_stopping: EarlyStopping | None = None,
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
        data = data_on(device, train_tensors, "train_tensors")
        test = None if test_tensors is None else data_on(device, test_tensors, "test_tensors")
        device = torch.device(device)
        rows = None if units is None else units_of(units, len(data))
        sampling = declared_sampler(
            sampler,
            privacy,
            dataset_size=(privacy and privacy.dataset_size) or len(rows or data),
            batch_size=batch_size,
            epochs=epochs,
            rows_per_unit=rows_per_unit,
        )
        also = validation_events(validation, len(epoch_ends(sampling)))
        plan = privacy.plan(sampling, also) if privacy else None
        taken = per_example(loss)
        given = {name: per_example(metric, "metric") for name, metric in (metrics or {}).items()}
        self._spent: PrivacyGuarantee | None = None
        self._begun, self._shared_ledger = isinstance(run_dir, RunFolder), ledger

        modes = TrainingModes(model.to(device))
        guard = ReleaseGuard(model, watching=privacy is not None)
        trainable = validate.trainable_parameters(model)
        made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer(trainable)
        validate.refuse_unreachable(model, made)
        held_out = HeldOut(validation, taken, device) if validation else None
        self.state = RunState(
            model=model,
            modes=modes,
            given_loss=loss,
            loss=taken,
            scores={"loss": taken, **given},
            data=data,
            test=test,
            units=rows,
            unit_digest="" if units is None else digest([torch.as_tensor(units)]),
            sampling=sampling,
            privacy=privacy,
            plan=plan,
            optimizer=made,
            callbacks=Callbacks(made, rate_schedule, held_out, early_stopping),
            guard=guard,
            streams=Streams() if seed is None else Streams(seed),
            folder=run_dir if isinstance(run_dir, RunFolder | None) else RunFolder(Path(run_dir)),
            device=device,
            physical_batch_size=begun_with(physical_batch_size),
            picks_size=physical_batch_size == AUTO,
            checkpoint_every=checkpoint_every,
        )
        if plan:
            self.state.method = try_all(self.state, held_out, gradients)

    model = Shown(lambda run: run.model)
    data = Shown(lambda run: run.data)
    test = Shown(lambda run: run.test)
    units = Shown(lambda run: run.units)
    loss = Shown(lambda run: run.loss)
    scores = Shown(lambda run: run.scores)
    sampling = Shown(lambda run: run.sampling)
    privacy = Shown(lambda run: run.privacy)
    plan = Shown(lambda run: run.plan)
    gradients = Shown(lambda run: run.method.kind)
    optimizer = Shown(lambda run: run.optimizer)
    callbacks = Shown(lambda run: run.callbacks)
    guard = Shown(lambda run: run.guard)
    streams = Shown(lambda run: run.streams)
    folder = Shown(lambda run: run.folder)
    device = Shown(lambda run: run.device)
    physical_batch_size = Shown(lambda run: run.physical_batch_size)
    ledger = Shown(lambda run: run.charges.ledger)
    attempt = Shown(lambda run: run.charges.attempt)
    noise_state = Shown(lambda run: run.noise_state)
    history = Shown(lambda run: run.history)
    done = Shown(lambda run: run.done)
    resumed = Shown(lambda run: run.resumed)
    stopped = Shown(lambda run: run.stopped)
    ended = Shown(lambda run: run.ended)
    torn = Shown(lambda run: run.torn)
    broken = Shown(lambda run: run.charges.broken)

    def fit(self) -> Trainer:
        """Run all steps that are left; returns the trainer itself."""
        for _ in self.run():
            pass
        return self

    def run(self) -> Iterator[Progress]:
        """Run step by step, yielding what was reached, for whoever shows progress."""
        run = self.state
        run.charges.refuse_broken()
        if not run.charges.are_open:
            validate.refuse_unreachable(run.model, run.optimizer)
            self.open()
        run.refuse_changed_state()
        run.guard.begin()
        if run.torn:  # a step was left half done: what it drew is charged and never drawn again
            where = environment(run.device, run.method.kind)
            run.begin_attempt(environment=where, repeatable=False)
        if not run.plan:
            self.step: PlainStep | PrivateStep = PlainStep(
                run.model,
                run.loss,
                run.optimizer,
                slots=run.sampling.microbatches,
                physical_batch_size=run.physical_batch_size,
            )
            yield from train(run, self.step)
            return
        with per_example_gradients(run.model, run.method.kind, run.method.layouts) as wrapped:
            self.step = PrivateStep(
                wrapped,
                run.loss,
                PrivateOptimizer(
                    run.optimizer,
                    microbatches=run.sampling.microbatches,
                    noise=run.plan.noise,
                    state=run.noise_state,
                ),
                physical_batch_size=run.physical_batch_size,
                before_release=run.before_release,
            )
            yield from train(run, self.step)

    def resume(self) -> Trainer:
        """Take up the run in ``run_dir`` at its last checkpoint.

        Raises:
            RunError: no run is there, its contract differs, or its checkpoint is damaged.
        """
        if self.folder is None:
            raise RunError("run_dir = None: nothing was kept to resume from; pass run_dir")
        run = self.state
        take_up(run, self.folder)
        done, charges, history = load_checkpoint(
            self.folder.checkpoints, run.model, run.optimizer, run.noise_state
        )
        run.guard.accept()
        run.done, run.history, run.resumed = done, history, True
        self._open_ledger(resumed=True)
        if run.plan:
            refuse_old_copy(self.ledger, self.folder, done, charges)
        return self

    def privacy_spent(self) -> PrivacyGuarantee:
        """What has been spent so far, by both accountants.

        Raises:
            RunError: the trainer has no privacy to speak of, or has not started.
        """
        if self.plan is None or not self.state.charges.has_ledger:
            raise RunError("privacy: nothing was charged; pass privacy=… and fit first")
        self.state.charges.refuse_broken()
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
            (folder := folder.free()).create()
            if self.plan:
                self.ledger.copy_to(folder.ledger)
        self.write_results(folder, spent)
        inputs, unit = self.data.schema.inputs, spent.unit if spent else None
        save_for_export(folder, self.model, unit, inputs, input_range, labels, output)
        return folder.path

    def write_results(
        self, folder: RunFolder, spent: PrivacyGuarantee | None, *, keep_privacy: bool = False
    ) -> None:
        """Weights, metrics and (unless another's is to be kept) privacy.json, atomically."""
        self.state.refuse_changed_state()
        self.state.write_metrics(folder)
        content = tensors_to_bytes(released_tensors(self.model))
        write_durably(folder.path / "model.safetensors", content)
        if not keep_privacy:
            folder.write_json("privacy.json", figures(spent))

    def close(self) -> None:
        """Let go of the ledger's file, so that another process may resume the run."""
        if self.state.charges.has_ledger and self._shared_ledger is None:
            self.ledger.close()

    def open(self) -> None:
        """Create the run folder and the ledger; ``run`` does so unless it was done."""
        run = self.state
        asked = contract(run)
        run.streams = streams_of(run, asked)
        own = None if self._begun else run.folder
        with own.beginning() if own else contextlib.nullcontext():
            write_beginning(run, asked)
            self._open_ledger(resumed=False)

    def _open_ledger(self, *, resumed: bool) -> None:
        run = self.state
        if run.plan and self._shared_ledger is not None:
            run.charges.open(self._shared_ledger)
        elif run.plan:
            path = run.folder.ledger if run.folder else None
            run.charges.open(run.plan.open_ledger(path, resumed=resumed))
        where = environment(run.device, run.method.kind)
        run.begin_attempt(environment=where, repeatable=run.device.type == "cpu")
