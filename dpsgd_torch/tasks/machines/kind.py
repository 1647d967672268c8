"""The anomaly-detection task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, TaskKind, knob
from dpsgd_torch.tasks.tiny import MADE_UP_SEED, PUBLIC_SEED, VALUES, TinyKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.features.sound import Frontend
    from dpsgd_torch.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class MachineKnobs(TinyKnobs):
    every: int = knob(
        5,
        "frames of 32 ms from one vector of five to the next; 1 for all that overlap",
        rule="count",
        since=3,
    )

    @property
    def class_labels(self) -> bool:
        return False


class Machines(TaskKind):
    """ToyADMOS's machines, or made-up ones."""

    name = "machines"
    what = "sounds of machines"
    knobs = MachineKnobs
    may_be_synthetic = True
    not_made_up = "an autoencoder classes nothing"
    units = ("recording",)
    presets = (
        PresetValues(
            "anomaly-detection",
            "MLPerf Tiny's autoencoder on ToyADMOS, or on made-up machines",
            values={
                **VALUES,
                "epochs": 12,
                "batch_size": 100,
                "clip_norm": 0.1,
                "made_up_rows": 600,
                "privacy_unit": "recording",
                "rows_per_unit": 12,
            },
        ),
    )

    def load(self, knobs: MachineKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.machines.task import machines_task, made_up_machines_task

        if data_dir:
            return machines_task(knobs.norm, data_dir, knobs.every)
        tested = knobs.made_up_test_rows
        return made_up_machines_task(
            knobs.norm, knobs.made_up_rows, tested, MADE_UP_SEED, knobs.every
        )

    def architecture(self, knobs: MachineKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.machines.model import autoencoder

        return autoencoder(torch.Generator(), knobs.norm)

    def public_inputs(self, knobs: MachineKnobs) -> Callable[[int], torch.Tensor]:
        import torch

        from dpsgd_torch.tasks.machines.synthetic import synthetic_machines

        def make(count: int) -> torch.Tensor:
            made = synthetic_machines(-(-count // 12), 0, PUBLIC_SEED, 5)
            return torch.from_numpy(made.values[:count])

        return make

    def input_range(self, knobs: MachineKnobs) -> tuple[float, float]:
        return self.frontend(knobs).input_range

    def frontend(self, knobs: MachineKnobs) -> Frontend:
        from dpsgd_torch.features.sound import MACHINES

        return MACHINES

    def output(self, knobs: MachineKnobs) -> str:
        return "values"
