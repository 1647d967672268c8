"""The text task, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, TaskKind
from dpsgd_torch.tasks.text.knobs import TextKnobs

if TYPE_CHECKING:
    from torch import nn

    from dpsgd_torch.tasks.task import Task


class Text(TaskKind):
    """Texts in a file, or docstrings."""

    name = "text"
    what = "texts"
    knobs = TextKnobs
    not_made_up = "no texts are made up"
    not_exported = (
        "a transformer cannot be carried to a microcontroller; load model.safetensors into "
        "dpsgd_torch.tasks.text.model.text_model"
    )
    presets = (
        PresetValues(
            "text",
            "which section of its documentation a paragraph is of: a transformer, at ε = 3",
            values={
                "dataset_size": None,
                "epochs": 4,
                "batch_size": 1024,
                "clip_norm": 1.0,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "learning_rate": 1.0,
            },
        ),
    )

    def load(self, knobs: TextKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.text.task import text_task

        return text_task(knobs, data_dir)

    def architecture(self, knobs: TextKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.text.model import text_model

        return text_model(knobs, len(labels), torch.Generator())
