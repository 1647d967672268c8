"""What happens between steps: learning rates, validation, the end of training, the epoch kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from accountant import Event
from dpsgd_torch.errors import RunError
from dpsgd_torch.schedules import Constant, Schedule
from dpsgd_torch.training.held_out import HeldOut, Validation, checksum
from dpsgd_torch.training.run_folder import write_durably
from dpsgd_torch.training.sealed import tensors_from_bytes, tensors_to_bytes
from dpsgd_torch.training.watch import Watch

if TYPE_CHECKING:
    from dpsgd_torch.training.trainer import Trainer


class Steering:
    """Decisions that rest on the plan and on released scores alone, so that a resumed run makes
    the same ones."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rate_schedule: Schedule | None,
        held_out: HeldOut | None,
        watch: Watch | None,
    ) -> None:
        self._optimizer = optimizer  # which makes its groups anew when it loads a checkpoint
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._schedule, self.watch = rate_schedule or Constant(1.0), watch or Watch()
        self.held_out = held_out
        self._best: dict[str, torch.Tensor] = {}

    def to_json(self) -> dict[str, Any]:
        held_out = self.held_out and self.held_out.to_json()
        watch = self.watch.to_json()
        return {"rates": self._schedule.to_json(), "held out": held_out, "watch": watch}

    def set_rates(self, step: int, scores: Sequence[float]) -> None:
        """Set each group's learning rate for ``step``."""
        factor = self._schedule.at(step) * self.watch.rate_factor(scores)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def validate(self, run: Trainer, epoch: int) -> float | None:
        """The validation score after ``epoch``, charged first where its rows are private."""
        if self.held_out is None or not self.held_out.asked.released:
            return None
        if run.plan is None or self.held_out.asked.public:
            return self.held_out.mean(run.model)
        step = run.sampling.steps + epoch
        on_record = run.charge(step, self.held_out.asked.event)
        rng = run.streams.numpy("validation", attempt=run.attempt, step=step)
        score = self.held_out.release(run.model, rng)
        run.settle(step, checksum(score), on_record)
        return score

    def keep(self, run: Trainer, scores: Sequence[float]) -> None:
        """Keep the weights of the epoch that just ended, if they are the best."""
        if not self.watch.keep_best or self.watch.best(scores) != len(scores) - 1:
            return
        weights = {k: v.detach().cpu().clone() for k, v in run.model.state_dict().items()}
        if run.folder:
            write_durably(self._path(run, len(scores) - 1), tensors_to_bytes(weights))
        self._best = weights

    def restore(self, run: Trainer, scores: Sequence[float]) -> None:
        """End with the weights of the best epoch, where that was asked for."""
        if not self.watch.keep_best or not scores:
            return
        if not self._best and run.folder:
            path = self._path(run, self.watch.best(scores))
            if not path.is_file():
                raise RunError(f"{path}: the best epoch's weights are gone; restore the file")
            self._best = tensors_from_bytes(path.read_bytes(), path)
        run.model.load_state_dict(self._best)

    def _path(self, run: Trainer, epoch: int) -> Any:
        assert run.folder
        return run.folder.private / f"best-{epoch + 1:05d}.safetensors"


def validation_events(held_out: Validation | None, epochs: int) -> tuple[tuple[Event, int], ...]:
    """What a run's validation costs."""
    free = held_out is None or held_out.public or not held_out.released
    return () if free or held_out is None else ((held_out.event, epochs),)
