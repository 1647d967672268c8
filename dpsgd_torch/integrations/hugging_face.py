"""Hugging Face: transformers' ``Trainer``, with its arguments and callbacks, trained privately."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from accountant.errors import check
from dpsgd_torch.errors import ConfigError, RunError
from dpsgd_torch.gradients.losses import Loss, per_example
from dpsgd_torch.integrations.hugging_face_arguments import (
    batch_size_of,
    epochs_of,
    loss_of,
    refuse_arguments,
    refuse_makers,
    refuse_overridden,
)
from dpsgd_torch.integrations.hugging_face_rows import rows_of
from dpsgd_torch.integrations.logger import UNCOVERED
from dpsgd_torch.integrations.needed import needed
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee, figures
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.samplers.base import Sampler
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.asked import LoopBatch
from dpsgd_torch.training.loop import epoch_ends
from dpsgd_torch.training.own_loop import Private

_Trainer = needed("transformers", "transformers").Trainer
_Output = needed("transformers.trainer_utils", "transformers").TrainOutput


class PrivateTrainer(_Trainer):  # type: ignore[misc, valid-type]
    """DP-SGD by the arguments of transformers' ``Trainer`` [Abadi et al. 2016, Algorithm 1].

    * The expected batch size is ``per_device_train_batch_size × gradient_accumulation_steps``. A
      batch is a Poisson sample, cut into parts of ``per_device_train_batch_size`` at most, and its
      sum is divided by the expected size, whoever was drawn.
    * ``num_train_epochs``, or ``max_steps``, are the steps of the plan.
    * A loss is one value an example: for tokens, the mean over that example's own. Theirs divides
      by the tokens of the whole batch, so that one example moves the others' gradients.
    * ``data_collator`` is called with one row at a time, and its rows must be of one length:
      ``pad_to``, or a collator that pads to ``max_length``.
    * Logs hold learning rate and ε; ``eval_dataset`` is public, and ε says nothing of it.
    * ``args.seed`` is public and keys no noise: ``seed`` does.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, processing_class: as transformers'
            ``Trainer`` takes them, as it does others by name. Adapters of ``peft`` train alone.
        privacy: the promise to keep.
        loss: (outputs, targets) → one value an example; None takes that of the model's task
            (``dpsgd_torch.losses``): a label a text, a label a token, the next token.
        pad_to: tokens that every row is padded to on the right, a declared number; None leaves
            rows as the collator makes them.
        run_dir: a folder for ledger and checkpoints, from which a run resumes by
            ``train(resume_from_checkpoint=True)``; those in ``output_dir`` hold no ledger.
        log_train_loss: whether logs hold the training loss too, which ε does not cover.
        units, rows_per_unit, sampler, checkpoint_every, seed: as ``Private`` takes them.

    Raises:
        ConfigError, InvalidValue, ModelError, DataError, RunError: before anything is charged.
    """

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        privacy: Privacy,
        loss: Loss | None = None,
        pad_to: int | None = None,
        units: Any = None,
        rows_per_unit: int | None = None,
        sampler: str | Callable[..., Sampler] = PoissonSampler,
        run_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
        log_train_loss: bool = False,
        seed: int | None = None,
        **more: Any,
    ) -> None:
        refuse_makers(more)
        check(pad_to is None or pad_to >= 1, "pad_to", pad_to, "must be ≥ 1 token, or None")
        refuse_overridden(type(self), PrivateTrainer)
        if args is None:
            raise ConfigError("args = None: name the batch size; pass TrainingArguments(…)")
        refuse_arguments(args)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **more,
        )
        self.control: Any  # which callbacks write to
        self.private: Private | None = None
        self.log_train_loss, self._pad_to = log_train_loss, pad_to
        loss = loss if loss is not None else loss_of(self.model)
        self._loss = per_example(loss)
        self._asked: dict[str, Any] = {
            "privacy": privacy,
            "loss": loss,
            "units": units,
            "rows_per_unit": rows_per_unit,
            "sampler": sampler,
            "run_dir": run_dir,
            "checkpoint_every": checkpoint_every,
            "seed": seed,
        }
        self._resumes, self._seen = False, (0.0, 0)

    def train(
        self,
        resume_from_checkpoint: Any = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train privately, from the beginning or from the last checkpoint in ``run_dir``.

        Args:
            resume_from_checkpoint: True, or ``run_dir``.

        Raises:
            RunError: there is no such run; whatever ends a run of ``Private``.
        """
        if trial is not None:
            raise RunError("trial: no ε covers a search; use python -m dpsgd_torch.search")
        folder = self._asked["run_dir"]
        if resume_from_checkpoint and (
            folder is None
            or (
                resume_from_checkpoint is not True
                and Path(resume_from_checkpoint).resolve() != Path(folder).resolve()
            )
        ):
            raise RunError(
                f"resume_from_checkpoint = {resume_from_checkpoint}: holds no ledger, without "
                "which no ε is known; pass PrivateTrainer(run_dir=…) from the start, and True here"
            )
        self._resumes = bool(resume_from_checkpoint)
        return super().train(None, None, ignore_keys_for_eval)

    def epsilon(self) -> float:
        """ε spent so far, at the ``delta`` of ``privacy``."""
        return self.privacy_spent().epsilon

    def privacy_spent(self) -> PrivacyGuarantee:
        """What has been spent so far, by both accountants.

        Raises:
            RunError: nothing was charged yet.
        """
        if self.private is None:
            raise RunError("privacy: nothing was charged; call train() first")
        return self.private.privacy_spent()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as transformers does, with its guarantee in ``privacy.json`` beside it."""
        super().save_model(output_dir, _internal_call)
        if self.private is not None and self.private.done:
            folder = RunFolder(Path(output_dir or self.args.output_dir))
            folder.write_json("privacy.json", figures(self.privacy_spent()))

    def hyperparameter_search(self, *given: Any, **more: Any) -> Any:
        """Refused: each trial looks at the data.

        Raises:
            RunError: always.
        """
        raise RunError("hyperparameter_search: no ε covers it; use python -m dpsgd_torch.search")

    def get_train_dataloader(self) -> Any:
        """Refused: batches are Poisson samples, which ``private`` draws.

        Raises:
            RunError: always.
        """
        raise RunError("get_train_dataloader: batches are Poisson samples; iterate over .private")

    def _inner_training_loop(
        self,
        batch_size: int | None = None,
        args: Any = None,
        resume_from_checkpoint: Any = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        private = self.private = self.private or self._made()
        started, before = time.time(), private.done
        self._begin(private)
        last = before
        with contextlib.closing(self._batches(private)) as batches:
            for batch in batches:
                private.backward(self._losses(batch))
                if private.ready:
                    self._call("on_pre_optimizer_step")
                rate = self._get_learning_rate()
                if not private.step():
                    continue
                self._call("on_optimizer_step")
                self.lr_scheduler.step()
                self._reached(private, private.done)
                self._call("on_step_end")
                self._tell(rate, started, ignore_keys_for_eval)
                last = private.done
                if last in epoch_ends(private.sampling):
                    self._call("on_epoch_end")
                    self._tell(rate, started, ignore_keys_for_eval)
                if self.control.should_epoch_stop:
                    raise RunError(
                        "should_epoch_stop: an epoch is a number of steps here, and has no end to "
                        "come to sooner; set should_training_stop"
                    )
                if self.control.should_training_stop and last < private.sampling.steps:
                    private.end_early("a callback set should_training_stop")
                    break
        return self._end(private, started, before)

    def _made(self) -> Private:
        """The run that the arguments ask for; taken up from its folder where that was asked."""
        args, asked = self.args, self._asked
        data = rows_of(self, self._pad_to)
        self.accelerator._models = [self.model]  # as it is: evaluation would wrap its forward
        units = asked["units"]
        count = asked["privacy"].dataset_size or (len(data) if units is None else len(set(units)))
        self.create_optimizer()
        private = Private(
            self.model,
            self.optimizer,
            data,
            batch_size=batch_size_of(args),
            epochs=epochs_of(args, count),
            loss=None if args.bf16 else asked["loss"],  # in half, its values are others
            physical_batch_size=args.train_batch_size,
            device=args.device,
            **{name: value for name, value in asked.items() if name != "loss"},
        )
        self.create_scheduler(private.sampling.steps, self.optimizer)
        private.keep(lr_scheduler=self.lr_scheduler)
        if self._resumes:
            private.resume()
        return private

    def _losses(self, batch: LoopBatch) -> torch.Tensor:
        inputs: Any = batch.inputs
        with self.accelerator.autocast():
            outputs = self.model(**inputs)
        losses = self._loss(_in_full(outputs), batch.targets)
        if self.log_train_loss and not (batch.rehearsal or batch.stands_in):
            total, count = self._seen
            self._seen = total + float(losses.detach().sum()), count + len(losses)
        return losses

    def _batches(self, private: Private) -> Any:
        """The run's batches; callbacks are told where a step or an epoch begins."""
        begun, ends = -1, [0, *epoch_ends(private.sampling)]
        with contextlib.closing(iter(private)) as batches:  # type: ignore[type-var]
            for batch in batches:
                if not batch.rehearsal and batch.step != begun:
                    if batch.step in ends or begun < 0:
                        self._call("on_epoch_begin")
                    self._call("on_step_begin")
                    begun = batch.step
                elif not batch.rehearsal:
                    self._call("on_substep_end")
                yield batch

    def _begin(self, private: Private) -> None:
        ends = epoch_ends(private.sampling)
        self._init_training_state(private.sampling.steps, ends[0], len(ends), None, None)
        self._reached(private, private.done)
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(self.callback_handler, name, getattr(self, name))
        self.callback_handler.train_dataloader = None
        self._globalstep_last_logged = private.done
        self._call("on_train_begin")
        if self.args.eval_on_start:
            self._evaluate(None, None)

    def _reached(self, private: Private, done: int) -> None:
        sampling = private.sampling
        self.state.global_step = done
        self.state.epoch = done * sampling.batch_size / sampling.dataset_size

    def _tell(self, rate: float, started: float, ignored: list[str] | None) -> None:
        """Log, evaluate and save, where the callbacks' control says so."""
        done = self.state.global_step
        if self.control.should_log and done > self._globalstep_last_logged:
            self._globalstep_last_logged = done
            logs = {"learning_rate": rate, "epsilon": self.epsilon()}
            if self.log_train_loss:
                total, count = self._seen
                logs[f"{UNCOVERED}/loss"] = total / max(count, 1)
                self._seen = 0.0, 0
            self.log(logs, started)
        if self.control.should_evaluate:
            self._evaluate(None, ignored)
        if self.control.should_save:
            self._save_checkpoint(self.model, None)
            self._call("on_save")

    def _end(self, private: Private, started: float, before: int) -> Any:
        spent = self.privacy_spent()
        steps = private.done - before
        metrics = {
            "train_runtime": round(time.time() - started, 4),
            "train_steps": steps,
            "epsilon": spent.epsilon,
            "delta": spent.delta,
        }
        self._memory_tracker.stop_and_update_metrics(metrics)
        self.log(metrics)
        self._call("on_train_end")
        self._finish_current_push()
        self.is_in_train = False
        return _Output(private.done, float("nan"), metrics)

    def _call(self, event: str) -> None:
        told = getattr(self.callback_handler, event)
        self.control = told(self.args, self.state, self.control)


def _in_full(outputs: Any) -> Any:
    """Logits in float32, where autocast left them in half."""
    logits = getattr(outputs, "logits", None)
    if isinstance(logits, torch.Tensor) and logits.dtype is torch.bfloat16:
        outputs.logits = logits.float()
    return outputs
