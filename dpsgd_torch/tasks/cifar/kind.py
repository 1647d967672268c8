"""The image-classification task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues, TaskKind
from dpsgd_torch.tasks.tiny import MADE_UP_SEED, OTHER_SEED, PUBLIC_SEED, VALUES, TinyKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


class Cifar(TaskKind):
    """CIFAR-10, or made-up coloured objects."""

    name = "cifar"
    what = "CIFAR-10's images"
    knobs = TinyKnobs
    may_be_synthetic = True
    not_made_up = ""
    calibration = "improved"  # deep: rounding of a range's margin adds up, layer after layer
    presets = (
        PresetValues(
            "image-classification",
            "MLPerf Tiny's ResNet-8 on CIFAR-10, or on made-up objects",
            values={
                **VALUES,
                "epochs": 5,
                "batch_size": 250,
                "learning_rate": 0.01,
                "made_up_rows": 6000,
            },
            chosen="Rows and learning rate were chosen by two runs on made-up objects of another "
            "seed than those that are trained and tested on.",
        ),
    )

    def load(self, knobs: TinyKnobs, data_dir: Path | None, partial: str) -> Task:
        from dpsgd_torch.tasks.cifar.task import cifar_task, made_up_cifar_task

        if data_dir:
            return cifar_task(knobs.norm, data_dir)
        rows = knobs.made_up_rows
        return made_up_cifar_task(knobs.norm, rows, knobs.made_up_test_rows, MADE_UP_SEED)

    def made_up(self, knobs: TinyKnobs, rows: int, test_rows: int) -> Task:
        from dpsgd_torch.tasks.cifar.task import made_up_cifar_task

        return made_up_cifar_task(knobs.norm, rows, test_rows, OTHER_SEED)

    def architecture(self, knobs: TinyKnobs, labels: tuple[str, ...]) -> nn.Module:
        import torch

        from dpsgd_torch.tasks.cifar.model import resnet8

        return resnet8(torch.Generator(), len(labels), knobs.norm)

    def public_inputs(self, knobs: TinyKnobs) -> Callable[[int], torch.Tensor]:
        import torch

        from dpsgd_torch.tasks.cifar.synthetic import synthetic_objects

        return lambda count: torch.from_numpy(synthetic_objects(count, PUBLIC_SEED)[0])
