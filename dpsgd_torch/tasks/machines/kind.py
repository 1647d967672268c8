"""The anomaly-detection task, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, knob
from dpsgd_torch.tasks.tiny import VALUES, TinyKind, TinyKnobs

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


class Machines(TinyKind):
    """ToyADMOS's machines, or made-up ones."""

    name = "machines"
    what = "sounds of machines"
    knobs = MachineKnobs
    not_made_up = "an autoencoder classes nothing"
    calibration = "plain"
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

    def recorded(self, knobs: MachineKnobs, data_dir: Path) -> Task:
        from dpsgd_torch.tasks.machines.task import machines_task

        return machines_task(knobs.norm, data_dir, knobs.every)

    def synthetic(self, knobs: MachineKnobs, rows: int, test_rows: int, seed: int) -> Task:
        from dpsgd_torch.tasks.machines.task import made_up_machines_task

        return made_up_machines_task(knobs.norm, rows, test_rows, seed, knobs.every)

    def network(self, generator: torch.Generator, outputs: int, norm: str) -> nn.Module:
        from dpsgd_torch.tasks.machines.model import autoencoder

        del outputs  # it copies its inputs
        return autoencoder(generator, norm)

    def inputs(self, count: int, seed: int) -> torch.Tensor:
        import torch

        from dpsgd_torch.tasks.machines.synthetic import synthetic_machines

        made = synthetic_machines(-(-count // 12), 0, seed, 5)
        return torch.from_numpy(made.values[:count])

    def frontend(self, knobs: MachineKnobs) -> Frontend:
        from dpsgd_torch.features.sound import MACHINES

        return MACHINES

    def output(self, knobs: MachineKnobs) -> str:
        return "values"
