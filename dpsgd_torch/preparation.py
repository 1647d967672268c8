"""What a run releases about its data before it trains: features chosen, scales, frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from accountant import Event, Ledger
from dpsgd_torch.config import RunConfig
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.run_folder import RunFolder


@dataclass(frozen=True)
class Preparation:
    """Releases planned from declared numbers, so that their cost is known before any is drawn."""

    events: tuple[tuple[Event, int], ...] = ()

    @classmethod
    def of(cls, config: RunConfig, task: Task) -> Preparation:
        return cls()

    @classmethod
    def none(cls) -> Preparation:
        return cls()

    def carry_out(
        self, task: Task, units: torch.Tensor | None, ledger: Ledger | None, folder: RunFolder
    ) -> Task:
        return task
