"""The digits task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import ImageKnobs, PresetValues, TaskKind

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


class Digits(TaskKind):
    """scikit-learn's bundled 8×8 digits."""

    name = "digits"
    what = "8×8 digits"
    knobs = ImageKnobs
    presets = (
        PresetValues(
            "digits",
            "scikit-learn's 8×8 digits: offline, in seconds, at ε = 3",
            values={
                "dataset_size": 1437,
                "epochs": 30,
                "batch_size": 128,
                "clip_norm": 1.0,
                "noise_multiplier": None,
                "epsilon": 3.0,
                "learning_rate": 1.0,
            },
        ),
    )

    def load(self, knobs: ImageKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.digits.task import digits_task

        return digits_task(knobs.dropout)

    def architecture(self, knobs: ImageKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.digits.task import digits_cnn

        return digits_cnn(torch.Generator(), knobs.dropout)

    def public_inputs(self, knobs: ImageKnobs) -> Callable[[int], torch.Tensor]:
        from dpsgd_torch.tasks.strokes import stroke_images

        return lambda count: stroke_images(count, size=8)
