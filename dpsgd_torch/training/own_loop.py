"""Train privately in a loop of one's own: Poisson batches, per-example losses, then noise."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accountant import Ledger
from accountant.errors import check
from dpsgd_torch.data.base import Data
from dpsgd_torch.data.trees import Tree
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.losses import Loss, per_example
from dpsgd_torch.gradients.methods import Method
from dpsgd_torch.precision import Precision
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.asked import LoopBatch, now
from dpsgd_torch.training.assembled import assembled
from dpsgd_torch.training.kept import is_scheduled
from dpsgd_torch.training.loop_story import READY, REHEARSED, STEPPED, LoopStory
from dpsgd_torch.training.optimizers import Optimizers, parts_of
from dpsgd_torch.training.physical_size import AUTO
from dpsgd_torch.training.rehearse import try_model
from dpsgd_torch.training.rehearse_loop import handed_on
from dpsgd_torch.training.rehearse_optimizer import try_optimizer
from dpsgd_torch.training.session import Session
from dpsgd_torch.training.state import Shown
from dpsgd_torch.training.turns import Turns
from dpsgd_torch.training.world import World


class Private:
    """DP-SGD in a loop of one's own [Abadi et al. 2016, Algorithm 1].

    * Guarantee: that of ``Trainer``, on whose plan, ledger and engine it stands.
    * The loop is rehearsed first: its first batches (``batch.rehearsal``) are made up or made of
      extreme rows, cost nothing and teach nothing. What mixes examples anywhere in the loop's body
      is refused then.
    * A batch that is skipped, used twice or given the losses of another, gradients that no noise
      was added to, and weights that change between steps, end the loop.
    * A loop that was left inside a batch goes on with a batch drawn afresh, and pays for both.

    Args:
        model: any module without batch statistics; trained in place.
        optimizer: one over the model's parameters, or ``lambda p: torch.optim.SGD(p, lr=0.25)``;
            a list of several, over disjoint ones (Muon for matrices, AdamW for the rest).
        data: inputs and targets of the n records, as ``Trainer`` takes them.
        privacy: the promise to keep.
        batch_size: expected batch size; the sampling rate is batch_size / n.
        epochs: passes over the data, in expectation.
        loss: (outputs, targets) → loss, where the loop's is no other than this: noise and batches
            of one seed are then those of a ``Trainer`` with it. None keys the noise by the losses
            themselves.
        units, rows_per_unit, sampler, run_dir, physical_batch_size: as ``Trainer`` takes them.
        checkpoint_every, ledger, device, seed, secure, world, precision: likewise. The model that
            the loop calls in training mode runs in that precision, and gives float32. Autocast that
            the loop opens itself works too, but for float16, which has no loss scale then.
        compile: not in a loop of one's own; a ``Trainer`` compiles its passes.

    Raises:
        InvalidValue, ModelError, DataError, RunError: before anything is charged.

    >>> inputs, targets = torch.rand(64, 5), torch.randint(2, (64,))
    >>> model = nn.Linear(5, 2)
    >>> private = Private(
    ...     model, torch.optim.SGD(model.parameters(), lr=0.1), (inputs, targets),
    ...     privacy=Privacy(epsilon=3, delta=1e-3, clip_norm=1.0), batch_size=16, epochs=2)
    >>> for batch in private:
    ...     outputs = model(batch.inputs)
    ...     private.backward(nn.functional.cross_entropy(outputs, batch.targets, reduction="none"))
    ...     done = private.step()
    >>> private.epsilon() <= 3
    True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        data: Sequence[Tree] | Data,
        *,
        privacy: Privacy,
        batch_size: int,
        epochs: float,
        loss: Loss | None = None,
        units: Any = None,
        rows_per_unit: int | None = None,
        sampler: str | Callable[..., Sampler] = PoissonSampler,
        run_dir: str | os.PathLike[str] | RunFolder | None = None,
        physical_batch_size: int | str = AUTO,
        checkpoint_every: int = 100,
        ledger: Ledger | None = None,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        secure: bool = False,
        world: World | None = None,
        precision: str | Precision = "float32",
        compile: bool = False,
    ) -> None:
        check(
            not compile,
            "compile",
            True,
            "the passes of a loop of one's own are run by that loop, and not compiled",
            "leave it out, or train by Trainer(compile=True)",
        )
        check(
            isinstance(privacy, Privacy),
            "privacy",
            privacy,
            "must be a Privacy: a loop without one needs no Private",
        )
        world = World.of_environment() if world is None else world
        with world.together():
            state = assembled(
                model,
                "own loop" if loss is None else loss,
                data,
                privacy=privacy,
                batch_size=batch_size,
                epochs=epochs,
                optimizer=optimizer,
                test_tensors=None,
                metrics=None,
                units=units,
                rows_per_unit=rows_per_unit,
                sampler=sampler,
                run_dir=run_dir,
                physical_batch_size=physical_batch_size,
                checkpoint_every=checkpoint_every,
                rate_schedule=None,
                lr_scheduler=None,
                validation=None,
                early_stopping=None,
                device=device,
                seed=seed,
                secure=secure,
                world=world,
                precision=precision,
                values=lambda inputs, targets: self._story.losses(inputs, targets),
            )
            state.forward, state.method = handed_on, Method("graph")
            try_model(state)
            try_optimizer(state.model, state.optimizer, kept=state.folder is not None)
            self.state = state
            self._session = Session(state, begun=isinstance(run_dir, RunFolder), ledger=ledger)
            world.exchange("a loop was made")
        self._story = LoopStory(self._session, None if loss is None else per_example(loss))
        self._turns: Turns | None = None
        self._at: Any = None
        self._asked = False
        self._waits = False  # a batch was handed over and its losses are to come
        self._since, self._around = 0, contextlib.ExitStack()

    model = Shown(lambda run: run.model)
    optimizer = Shown(lambda run: run.optimizer)
    privacy = Shown(lambda run: run.privacy)
    plan = Shown(lambda run: run.plan)
    sampling = Shown(lambda run: run.sampling)
    precision = Shown(lambda run: run.precision)
    physical_batch_size = Shown(lambda run: run.physical_batch_size)
    ledger = Shown(lambda run: run.charges.ledger)
    history = Shown(lambda run: run.history)
    done = Shown(lambda run: run.done)
    stopped = Shown(lambda run: run.stopped)

    def __iter__(self) -> Iterator[LoopBatch]:
        """The batches of the steps that are left, in parts; rehearsal batches first."""
        if self._turns is not None:
            raise RunError(
                "loop: another loop over this run is open; finish it, or close its iterator, first"
            )
        run = self.state
        run.ended = ""  # it goes on
        self._refuse_unkept()
        self._turns = turns = Turns(self._story)
        before = run.done
        hooks = [
            part.register_step_pre_hook(self._story.refuse_bare_step)
            for part in parts_of(run.optimizer)
        ]
        mixed = contextlib.ExitStack()
        try:
            mixed.enter_context(run.precision.within(run.model, run.device))
            with run.world.each_by_itself(), run.world.stopping_together():
                yield from self._batches(turns)
        finally:
            self._around.close()
            mixed.close()
            turns.close()
            for hook in hooks:
                hook.remove()
            self._turns, self._at, self._waits = None, None, False
        idle, self._asked = run.done == before, self._asked or not run.resumed
        if idle and self._asked:
            why = run.stopped or f"all {run.sampling.steps} steps are done"
            warnings.warn(f"loop: nothing was trained: {why}", stacklevel=2)
        self._asked = True

    def _batches(self, turns: Turns) -> Iterator[LoopBatch]:
        """What the story asks, one question after the other."""
        self._at = turns.resume()
        while self._at is not None:
            question, self._waits = self._at, True
            for context in question.around:
                self._around.enter_context(context)
            self._since = now()
            torch.clear_autocast_cache()  # of an autocast that is open around the loop
            yield question.batch
            if turns.ended:
                raise RunError(self._told("loop: went on after an error; begin it again"))
            if self._waits:
                raise RunError(self._told("this batch was skipped; call backward on each"))
            if self._at == READY:
                raise RunError(self._told("this batch is the last of its step; call step()"))
            if self._at in (STEPPED, REHEARSED):
                self._at = turns.resume()

    def backward(self, losses: torch.Tensor) -> None:
        """Clip and add up what each example's loss gives; losses are (n,), one an example.

        Raises:
            ModelError: they are not the losses of this batch's examples, or examples mix.
            RunError: this batch had its backward.
        """
        if self._turns is None or self._turns.ended or not self._waits:
            raise RunError(self._told("backward: no batch waits for it; call it once for each"))
        self._around.close()
        self._waits = False
        self._at = self._turns.resume((losses, self._since))

    @property
    def ready(self) -> bool:
        """Whether the batch is whole, so that ``step`` adds noise and steps the optimizer."""
        return self._at == READY

    def step(self) -> bool:
        """At a batch's end noise, optimizer and ledger; True then, and False before.

        Raises:
            RunError: there was no backward.
            GuaranteeBroken: something besides noise wrote to the model.
        """
        if self._turns is None or self._turns.ended or self._waits:
            raise RunError(self._told("step: comes after backward, of the same batch"))
        if self._at != READY:
            return False
        self._at = self._turns.resume()
        return True

    def keep(self, **things: Any) -> None:
        """Keep the state of schedulers, averaged models and the like in checkpoints, by name.

        Each has ``state_dict`` and ``load_state_dict``; call it before the loop and ``resume``.

        Raises:
            ModelError: no checkpoint can hold it, or it follows a score.
        """
        if self.state.charges.are_open:
            raise RunError(f"keep: {', '.join(things)}: comes before the loop and resume")
        for name, thing in things.items():
            self.state.kept.add(name, thing)

    def extend(self, epochs: float) -> Private:
        """So many more epochs for the next loop, once all that were planned are done.

        Raises:
            RunError: the plan was calibrated to cost ε, or leaves no room else.
        """
        self._session.extend(epochs)
        return self

    def end_early(self, reason: str) -> None:
        """Say that the loop was left because of what was seen, such as a score of any kind.

        ε is then that of all that was planned, or the budget, as after ``EarlyStopping``: one of
        the steps taken would be a promise chosen in view of the outcome.
        """
        if self.done < self.sampling.steps and not self.stopped:
            self.state.ended = reason

    def resume(self) -> Private:
        """Take up the run in ``run_dir`` at its last checkpoint, before the loop begins.

        Raises:
            RunError: no run is there, its contract differs, or its checkpoint is damaged.
        """
        self._session.resume()
        self.state.picks_size = False  # as the run began
        return self

    def epsilon(self) -> float:
        """ε spent so far, at the ``delta`` of ``privacy``."""
        return self.privacy_spent().epsilon

    def privacy_spent(self) -> PrivacyGuarantee:
        """What has been spent so far, by both accountants.

        Raises:
            RunError: nothing was charged yet.
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
        """Write weights, ledger and privacy.json, as ``Trainer.save`` does; returns the folder."""
        return self._session.save(path, input_range=input_range, labels=labels, output=output)

    def close(self) -> None:
        """Let go of the ledger's file, so that another process may resume the run."""
        self._session.close()

    def _refuse_unkept(self) -> None:
        for part in parts_of(self.optimizer) if self.state.folder else ():
            if is_scheduled(part) and not self.state.kept.steps(part):
                raise RunError(
                    "optimizer: a scheduler is over it that no checkpoint keeps, so that a resumed "
                    "run would go on at other rates; call private.keep(scheduler=scheduler) first"
                )

    def _told(self, what: str) -> str:
        free = not self.state.torn
        end = "nothing was charged" if free else "the step's charge stands, and its batch is gone"
        return f"{what}; {end}"
