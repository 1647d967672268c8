"""Lightning: a strategy with which ``L.Trainer.fit`` trains privately."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics import Metric

from accountant.errors import check
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.data.examples import Targets
from dpsgd_torch.data.unit_ids import UnitIds
from dpsgd_torch.errors import RunError
from dpsgd_torch.integrations.lightning_loader import StepLoader, StepToTake, rows_and_batches
from dpsgd_torch.integrations.lightning_refused import refuse_unfit
from dpsgd_torch.integrations.private_options import PrivateOptions
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.training.asked import LoopBatch
from dpsgd_torch.training.loop import epoch_ends
from dpsgd_torch.training.own_loop import Private


class PrivateStrategy(SingleDeviceStrategy):
    """DP-SGD by ``L.Trainer.fit``, on one device [Abadi et al. 2016, Algorithm 1].

    * ``training_step`` returns a loss for each example, of shape (n,), alone or as ``"loss"`` of a
      dict. The loader's dataset and collate_fn are taken, and Poisson sampling draws from them.
    * A step of Lightning's is a private step, whatever parts its batch is cut to: ``training_step``
      is called with each part. Steps, epochs and schedulers are counted as Lightning does.
    * The first calls of ``training_step`` are a rehearsal on made-up and extreme rows, which cost
      nothing; nothing is logged of them.
    * ``epsilon`` is logged after each epoch, and printed at the end; a training loss is logged
      only where ``training_step`` does it, and ε does not cover it.
    * A run is resumed from ``run_dir``, not from Lightning's checkpoints, which know no ledger.

    Args:
        privacy: the promise to keep.
        batch_size: expected batch size; None takes the loader's.
        resume: take up the run that ``run_dir`` holds.
        targets: key or position of what is predicted in an item, where it is not plain.
        options: loss, units, rows_per_unit, sampler, run_dir, physical_batch_size,
            checkpoint_every, ledger and seed, as ``Private`` takes them.

    Raises:
        TrainingError: in ``fit``, before anything is charged: settings and hooks that cannot hold.
    """

    strategy_name = "dpsgd_torch"

    def __init__(
        self,
        *,
        privacy: Privacy,
        batch_size: int | None = None,
        resume: bool = False,
        targets: Targets = None,
        **options: Unpack[PrivateOptions],
    ) -> None:
        super().__init__()
        check(isinstance(privacy, Privacy), "privacy", privacy, "must be a Privacy")
        check(
            not resume or options.get("run_dir") is not None,
            "run_dir",
            None,
            "must be given to resume",
        )
        self._privacy, self._batch_size, self._resume = privacy, batch_size, resume
        self._targets, self._options = targets, options
        self._run: Private | None = None
        self._parts: Iterator[LoopBatch] = iter(())
        self._part: LoopBatch | None = None
        self._batch_of: Callable[[Any, Any], Any] = lambda inputs, targets: (inputs, targets)
        self._in_step = False

    @property
    def private(self) -> Private:
        """The run: ``epsilon()``, ``privacy_spent()``, ``save(path)``.

        Raises:
            RunError: ``fit`` has not begun.
        """
        if self._run is None:
            raise RunError("private: there is no run yet; call Trainer.fit first")
        return self._run

    def setup_environment(self) -> None:
        devices = self._trainer._accelerator_connector._parallel_devices
        self._root_device = torch.device(devices[0])
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        if self._trainer.state.fn == TrainerFn.FITTING:
            raise RunError(
                f"ckpt_path = {str(checkpoint_path)!r}: holds no ledger and no noise, so that ε "
                "would be counted short; PrivateStrategy(run_dir=…, resume=True) takes up a run"
            )
        return super().load_checkpoint(checkpoint_path, weights_only)

    def setup(self, trainer: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            if self._run is not None:
                raise RunError(
                    "fit: this strategy has trained, and its ε is that of one run; make another "
                    "Trainer and PrivateStrategy, whose ε adds to this one's on the same data"
                )
            refuse_unfit(trainer, self._module)
            trainer.callbacks.append(_Told(self))
        super().setup(trainer)

    def process_dataloader(self, dataloader: object) -> object:
        """The steps to take, in place of a train loader; others as they are."""
        trainer = self._trainer
        if not (trainer.state.fn == TrainerFn.FITTING and trainer.training):
            return dataloader
        if self._run is not None:
            raise RunError("train_dataloaders: several: must be one; join their datasets")
        rows, self._batch_of = rows_and_batches(dataloader, self._targets)
        data = data_on(self.root_device, rows, "train_dataloaders")
        batch_size = self._batch_size or getattr(dataloader, "batch_size", None) or 0
        n = self._privacy.dataset_size or len(data)
        if (units := self._options.get("units")) is not None and not self._privacy.dataset_size:
            n = len(UnitIds(units, len(data)).rows)
        private = Private(
            self._module,
            self.optimizers,
            data,
            privacy=self._privacy,
            batch_size=batch_size,
            epochs=_epochs(trainer, batch_size, n),
            device=self.root_device,
            **self._options,
        )
        for number, config in enumerate(self.lr_scheduler_configs):
            private.keep(**{f"lr_scheduler_{number}": config.scheduler})
        if self._resume:
            private.resume()
        self._run, self._parts = private, iter(private)
        ends = epoch_ends(private.sampling)
        loader = StepLoader(
            ends, lambda: private.done, begin=self._begin_epoch, waits=self._step_waits
        )
        _count_on(trainer, loader.epochs, private.done)
        return loader

    def batch_to_device(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        if isinstance(batch, StepToTake):
            return batch
        return super().batch_to_device(batch, device, dataloader_idx)

    def training_step(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """One private step, part by part; returns the mean loss, which ε does not cover."""
        arguments, total, count = args[1:], torch.zeros(()), 0
        while True:
            part, losses, stepped = self._take(arguments)
            if not (part.rehearsal or part.stands_in):
                total, count = total + losses.sum().cpu(), count + len(losses)
            if stepped:
                return {"loss": total / max(1, count)}
            self._part = next(self._parts)

    def backward(self, closure_loss: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Nothing: ``training_step`` has done it."""
        return closure_loss

    def optimizer_step(
        self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any
    ) -> Any:
        """What of a step Lightning counts; ``training_step`` takes it."""
        if self._in_step:
            raise RunError("training_step: stepped an optimizer, to which no noise was added")
        return closure()

    def on_train_end(self) -> None:
        if self.private.state.charges.has_ledger:
            self.private.end_early("Lightning stopped before the last step")
            spent = self.private.privacy_spent()
            self._module.print(f"privacy spent: ε = {spent.epsilon:.4g} at δ = {spent.delta:g}")

    def end_if_done(self) -> None:
        """Keep the last step and end the run, once all steps are taken."""
        if self.private.done == self.private.sampling.steps:
            next(self._parts, None)

    def teardown(self) -> None:
        self._close()
        super().teardown()

    def on_exception(self, exception: BaseException) -> None:
        self._close()
        super().on_exception(exception)

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    @property
    def _trainer(self) -> Any:
        return self._module.trainer

    def _close(self) -> None:
        close = getattr(self._parts, "close", None)
        if close:
            close()
        self._part = None

    def _begin_epoch(self, steps: int) -> None:
        """As when a loader is loaded anew: an epoch may be a step shorter than the first."""
        trainer = self._trainer
        trainer.fit_loop.max_batches = steps
        if isinstance(trainer.val_check_interval, float) and trainer.val_check_batch is not None:
            trainer.val_check_batch = max(1, int(steps * trainer.val_check_interval))

    def _step_waits(self) -> bool:
        """Go on to the next step, over what is rehearsed before it; False where none is left."""
        while self._part is None or self._part.rehearsal:
            if self._part is not None:
                self._take((0,))
            self._part = next(self._parts, None)
            if self._part is None:
                self._trainer.should_stop = True
                return False
        return True

    def _take(self, arguments: tuple[Any, ...]) -> tuple[LoopBatch, torch.Tensor, bool]:
        part, module, trainer = self._part, self._module, self._trainer
        assert part is not None
        batch = self._batch_of(part.inputs, part.targets)
        self._in_step = True
        try:
            with _unlogged(module) if part.rehearsal or part.stands_in else _logged(trainer, batch):
                batch = super().batch_to_device(batch, dataloader_idx=0)
                with torch.enable_grad():
                    output = super().training_step(batch, *arguments)
        finally:
            self._in_step = False
        losses: Any = output.get("loss") if isinstance(output, Mapping) else output
        self.private.backward(losses)
        stepped = self.private.step()
        self._part = None
        return part, losses.detach(), stepped


class _Told(Callback):
    """Logs ε after each epoch; after the last one, ends the run before weights are averaged."""

    def __init__(self, strategy: PrivateStrategy) -> None:
        self._strategy = strategy

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer
        private = self._strategy.private
        self._strategy.end_if_done()
        epsilon = private.history.epochs[-1].epsilon if private.history.epochs else None
        if epsilon is not None:
            pl_module.log("epsilon", epsilon, prog_bar=True)


def _epochs(trainer: Any, batch_size: int, n: int) -> float:
    """Epochs that are planned: ``max_epochs``, or those after which ``max_steps`` are taken."""
    most = float("inf") if trainer.max_epochs in (None, -1) else float(trainer.max_epochs)
    if trainer.max_steps == -1:
        return most
    return min(most, (trainer.max_steps - 0.5) * batch_size / n)


def _count_on(trainer: Any, epochs: int, steps: int) -> None:
    """Have Lightning count from where a run is taken up."""
    loop = trainer.fit_loop
    for counted in (loop.epoch_progress.current, loop.epoch_progress.total):
        counted.ready = counted.started = counted.processed = counted.completed = epochs
    counted = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    counted.ready = counted.completed = loop.epoch_loop._batches_that_stepped = steps


@contextlib.contextmanager
def _unlogged(module: Any) -> Iterator[None]:
    """Nothing is logged or counted: the rows are none of the data's, or rehearsed."""
    module.__dict__["log"] = lambda *args, **kwargs: None
    counted = [(part, _counts(part)) for part in module.modules() if isinstance(part, Metric)]
    try:
        yield
    finally:
        del module.__dict__["log"]
        for metric, counts in counted:
            metric.__dict__.update(counts)


def _counts(metric: Any) -> dict[str, Any]:
    """What a metric holds of the rows it has seen."""
    names = [*metric._defaults, "_update_count", "_computed", "_forward_cache"]
    held = {name: getattr(metric, name) for name in names}
    return {name: copy.deepcopy(value) for name, value in held.items()}


@contextlib.contextmanager
def _logged(trainer: Any, batch: Any) -> Iterator[None]:
    """What is logged is of this part of a batch, which tells how many rows it is a mean of."""
    results = trainer._results
    results.batch, results.batch_size = batch, None
    yield
