"""What happens between steps: learning rates, validation, the end of training, the epoch kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from accountant import Event
from dpsgd_torch.errors import RunError
from dpsgd_torch.schedules import Schedule
from dpsgd_torch.storage.run_folder import RunFolder, write_durably
from dpsgd_torch.storage.sealed import tensors_from_bytes, tensors_to_bytes
from dpsgd_torch.training.charges import Charges
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.rates import Rates
from dpsgd_torch.training.released_state import released_tensors
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.validation import HeldOut, Scores, Validation, checksum
from dpsgd_torch.training.world import ALONE, World


class Steering:
    """Decisions that rest on the plan and on released scores alone, so that a resumed run makes
    the same ones."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rate_schedule: Schedule | None,
        held_out: HeldOut | None,
        early_stopping: EarlyStopping | None,
        scheduler: LRScheduler | None = None,
    ) -> None:
        self.early_stopping = early_stopping or EarlyStopping()
        slowing = self.early_stopping.plateau is not None
        self.rates = Rates(optimizer, rate_schedule, slowing=slowing)
        self.held_out, self.scheduler = held_out, scheduler
        self._best: dict[str, torch.Tensor] = {}

    def to_json(self) -> dict[str, Any]:
        held_out = self.held_out and self.held_out.to_json()
        watch = self.early_stopping.to_json()
        return {"rates": self.rates.schedule.to_json(), "held out": held_out, "watch": watch}

    def set_rates(self, step: int, scores: Sequence[float]) -> None:
        """Set each group's learning rate for ``step``."""
        self.rates.set(step, self.early_stopping.rate_factor(scores))

    def stepped(self) -> None:
        """After each step: torch's scheduler goes on."""
        if self.scheduler:
            self.scheduler.step()

    def validate(
        self,
        model: nn.Module,
        streams: Streams,
        step: int,
        charges: Charges | None,
        world: World = ALONE,
        *,
        keyed: bool = False,
        whole: Callable[[Callable[[], Scores], str], Scores | None] | None = None,
    ) -> float | None:
        """The validation score, charged as ``step`` before it is drawn where rows are private.

        Every rank scores its part of the rows; rank 0 draws the score, once, and tells it.

        Args:
            whole: where ranks hold parts of the model: makes on rank 0 what takes all of it.
        """
        held_out = self.held_out
        if held_out is None or not held_out.asked.released:
            return None
        if whole is None:
            scores = held_out.scores(model, world)
        else:
            scores = cast(Scores, whole(lambda: held_out.scores(model, ALONE), "validation"))
        if charges is None or held_out.asked.public:
            if whole is None:
                return held_out.mean(scores)
            return world.first(lambda: held_out.mean(scores), "validation")

        def drawn() -> float:
            on_record = charges.reserve(step, held_out.asked.event)
            rng = streams.numpy("validation", attempt=charges.attempt, step=step)
            score = held_out.release(scores, rng, keyed=keyed)
            charges.settle(step, checksum(score), on_record)
            return score

        score = world.first(drawn, "validation")
        if not world.is_first:
            self._follow(score, held_out, step, charges)
        return score

    def _follow(self, score: float, held_out: HeldOut, step: int, charges: Charges) -> None:
        """Put on a copy of the ledger what rank 0 charged for a score."""
        on_record = charges.reserve(step, held_out.asked.event)
        charges.settle(step, checksum(score), on_record)

    def keep(self, model: nn.Module, folder: RunFolder | None, scores: Sequence[float]) -> bool:
        """Keep the weights of the epoch that just ended, if they are the best; whether they are."""
        if not self.early_stopping.keep_best or self.early_stopping.best(scores) != len(scores) - 1:
            return False
        weights = released_tensors(model)
        if folder:
            write_durably(_path(folder, len(scores) - 1), tensors_to_bytes(weights))
        self._best = weights
        return True

    def restore(self, model: nn.Module, folder: RunFolder | None, scores: Sequence[float]) -> None:
        """End with the weights of the best epoch, where that was asked for."""
        if not self.early_stopping.keep_best or not scores:
            return
        if not self._best and folder:
            path = _path(folder, self.early_stopping.best(scores))
            if not path.is_file():
                raise RunError(f"{path}: the best epoch's weights are gone; restore the file")
            self._best = tensors_from_bytes(path.read_bytes(), path)
        model.load_state_dict(self._best)


def _path(folder: RunFolder, epoch: int) -> Path:
    return folder.private / f"best-{epoch + 1:05d}.safetensors"


def validation_events(held_out: Validation | None, epochs: int) -> tuple[tuple[Event, int], ...]:
    """What a run's validation costs."""
    free = held_out is None or held_out.public or not held_out.released
    return () if free or held_out is None else ((held_out.event, epochs),)
