"""Train a model of one's own privately: build, fit, ask what it cost, save."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from accountant import Ledger
from accountant.errors import check
from dpsgd_torch.data.views import Augment
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.methods import RENAMED
from dpsgd_torch.optim.base import Average, Filter
from dpsgd_torch.precision import Precision, refuse_open_autocast
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.renamed import renamed_arguments
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Schedule
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.assembled import assembled
from dpsgd_torch.training.callbacks import Callback, callbacks_in, telling
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.loop import Progress, train
from dpsgd_torch.training.optimizers import Optimizers
from dpsgd_torch.training.physical_size import AUTO
from dpsgd_torch.training.rates import SchedulerFactory
from dpsgd_torch.training.rehearse import try_all
from dpsgd_torch.training.session import Session
from dpsgd_torch.training.state import Shown
from dpsgd_torch.training.validation import Validation
from dpsgd_torch.training.views import Views
from dpsgd_torch.training.world import World


class Trainer:
    """DP-SGD on any data with random access [Abadi et al. 2016, Algorithm 1].

    * Guarantee: the weights after any step are (ε, δ)-differentially private under add/remove of
      one record, with ε as ``privacy_spent`` says, whoever sees them.
    * Sampling, clip, noise and step count come from one plan, which is also what is charged.

    Args:
        model: any module without batch statistics; trained in place. Modules put in ``eval()``
            stay so (a frozen batch norm), unless the model as a whole is: then all train.
        loss: (outputs, targets) → loss; a torch loss, or one value per example.
        train_tensors: inputs and targets of the n records, each a tensor, array or table column, or
            a tuple, list or dict of them, with which the model is called; a torch
            ``Dataset``, or a kind of ``Data``.
        privacy: the promise to keep, or None to train without one.
        batch_size: expected batch size; the sampling rate is batch_size / n.
        epochs: passes over the data, in expectation.
        optimizer: one over the model's parameters, or ``lambda p: torch.optim.SGD(p, lr=0.25)``;
            a list of several, over disjoint ones (Muon for matrices, AdamW for the rest).
        test_tensors: public inputs and targets to report on at each epoch, or None.
        metrics: name → function (outputs, targets) or torchmetrics object, as ``Metrics`` says.
        units: the id of the person, drug, … each record belongs to (n,), of any hashable type, for
            a guarantee to them (``Privacy.unit`` names them); None protects each record by itself.
        rows_per_unit: with ``units``, so many of a unit's records at most are averaged in a step.
        sampler: the kind of sampler, made from the numbers above: a name as "balls" or
            "truncated:300", or a class; Poisson by default.
        run_dir: a new or empty folder for all that is kept; None: it is in memory until ``save``.
        physical_batch_size: examples whose gradients are held at once; bounds memory only.
        checkpoint_every: steps between checkpoints, besides one at each epoch's end.
        gradients: "graph" reads each example's off autograd's graph; "opacus" stores them by hooks
            on layers, Opacus's; "auto" is "graph", or what the run to ``resume`` began with.
        rate_schedule: by which the optimizer's learning rates are multiplied, step by step.
        lr_scheduler: one of torch's, or ``lambda optimizer: CosineAnnealingLR(optimizer, 100)``;
            it goes on after each step, and is kept in checkpoints.
        validation: rows kept out of training, scored after each epoch.
        early_stopping: what those scores decide: stop, slow down, keep the best epoch.
        ledger: one, or a part of one, that others charge too and close; None opens ``run_dir``'s.
        callbacks: told of each step and epoch (``training.callbacks.Callback``), as loggers are.
        device: where to train; on the CPU an interrupted run repeats bit for bit.
        world: the processes that train this run together; None: those that torchrun began.
        compile: whether passes, norms and sums are compiled (``torch.compile``); where they cannot
            be, a warning says why, and the run goes on without.
        shard: of several processes, each holds a part of parameters, sums, noise and optimizer
            state alone while steps are taken, and noise is drawn by blocks, whoever draws it.
        seed: makes the run reproducible, also for an attacker who knows it: a published one
            protects nobody. None draws 256 bits from the operating system.
        precision: of forward and backward passes in training: "float32", "bf16", "fp16" or
            "fp16:4096", a loss scale; see ``Precision``. Scores are computed in float32.
        secure: noise exact to the last bit, and it and the samples from a cryptographic generator;
            ``docs/secure.md`` says what is then proven.
        views: so many of a record are drawn by ``augment`` in each step, and the mean of their
            gradients is clipped as one [De et al. 2022, Section 3]: sensitivity and ε are as ever.
        augment: (inputs, draws) → inputs of the same shape; ``data.views`` says what draws are.
        average: "ema:0.999", "tail:0.5" or an ``optim.Average`` of the weights, which is scored,
            validated, saved and left in the model in place of the last ones; free.
        filter: "doppler:0.9", "disk:0.7" or an ``optim.Filter`` of the noisy gradient; free.

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
        optimizer: Optimizers,
        test_tensors: Any = None,
        metrics: Mapping[str, Any] | None = None,
        units: Any = None,
        rows_per_unit: int | None = None,
        sampler: str | Callable[..., Sampler] = PoissonSampler,
        run_dir: str | os.PathLike[str] | RunFolder | None = None,
        physical_batch_size: int | str = AUTO,
        checkpoint_every: int = 100,
        gradients: str = "auto",
        rate_schedule: Schedule | None = None,
        lr_scheduler: LRScheduler | SchedulerFactory | None = None,
        validation: Validation | None = None,
        early_stopping: EarlyStopping | None = None,
        ledger: Ledger | None = None,
        callbacks: Iterable[Callback] = (),
        device: str | torch.device = "cpu",
        compile: bool = False,
        seed: int | None = None,
        secure: bool = False,
        world: World | None = None,
        precision: str | Precision = "float32",
        shard: bool = False,
        views: int = 1,
        augment: Augment | None = None,
        average: str | Average | None = None,
        filter: str | Filter | None = None,
    ) -> None:
        self.callbacks, self._fitted = callbacks_in(callbacks), False
        world = World.of_environment() if world is None else world
        with world.together():
            self.state = state = assembled(
                model,
                loss,
                train_tensors,
                privacy=privacy,
                batch_size=batch_size,
                epochs=epochs,
                optimizer=optimizer,
                test_tensors=test_tensors,
                metrics=metrics,
                units=units,
                rows_per_unit=rows_per_unit,
                sampler=sampler,
                run_dir=run_dir,
                physical_batch_size=physical_batch_size,
                checkpoint_every=checkpoint_every,
                rate_schedule=rate_schedule,
                lr_scheduler=lr_scheduler,
                validation=validation,
                early_stopping=early_stopping,
                device=device,
                seed=seed,
                compiles=compile,
                secure=secure,
                world=world,
                precision=precision,
                shard=shard,
                average=average,
                filter=filter,
                views=Views(views, augment),
            )
            self._session = Session(state, begun=isinstance(run_dir, RunFolder), ledger=ledger)
            refuse_open_autocast(state.device)
            check(
                not state.precision.is_mixed or gradients != "opacus",
                "gradients",
                gradients,
                f"cannot run in precision {state.precision}; leave it at 'auto'",
            )
            if state.plan:
                state.method = try_all(state, state.steering.held_out, gradients)
            elif compile:
                warnings.warn(
                    "compile: private steps alone are compiled; this run, without privacy, goes on "
                    "without it",
                    stacklevel=3,
                )
            world.exchange("a trainer was made")

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
    precision = Shown(lambda run: run.precision)
    optimizer = Shown(lambda run: run.optimizer)
    steering = Shown(lambda run: run.steering)
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

    def fit(self, epochs: float | None = None) -> Trainer:
        """Run all steps that are left; returns the trainer itself.

        Args:
            epochs: so many more than were planned, once all of those are done: the ledger adds up
                as far as the budget. A resumed run is then given the sum.

        Raises:
            RunError: more epochs, and the plan was calibrated to cost ε, or leaves no room else.
        """
        if epochs is not None:
            self._session.extend(epochs)
        before, again, self._fitted = self.done, self._fitted, True
        for _ in self.run():
            pass
        # a finished run may be resumed, and fit again, by one script
        if self.done == before and (again or not self.resumed):
            done = f"all {self.sampling.steps} steps are done; fit(epochs=…) adds some"
            why = self.stopped or self.ended or done
            warnings.warn(f"fit: nothing was trained: {why}", stacklevel=2)
        return self

    @telling
    def run(self) -> Iterator[Progress]:
        """Run step by step, yielding what was reached, for whoever shows progress."""
        with self._session.stepping() as self.step:
            yield from train(self.state, self.step)

    def resume(self) -> Trainer:
        """Take up the run in ``run_dir`` at its last checkpoint.

        Raises:
            RunError: no run is there, its contract differs, or its checkpoint is damaged.
        """
        self._session.resume()
        return self

    def privacy_spent(self) -> PrivacyGuarantee:
        """What has been spent so far, by both accountants.

        Raises:
            RunError: the trainer has no privacy to speak of, or has not started.
        """
        return self._session.privacy_spent()

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
        return self._session.save(path, input_range=input_range, labels=labels, output=output)

    def write_results(
        self, folder: RunFolder, spent: PrivacyGuarantee | None, *, keep_privacy: bool = False
    ) -> None:
        """Weights, metrics and (unless another's is to be kept) privacy.json, atomically."""
        self._session.write_results(folder, spent, keep_privacy=keep_privacy)

    def close(self) -> None:
        """Let go of the ledger's file, so that another process may resume the run."""
        self._session.close()

    def open(self) -> None:
        """Create the run folder and the ledger; ``run`` does so unless it was done."""
        self._session.open()
