"""The image-classification task, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpsgd_torch.tasks.base import PresetValues
from dpsgd_torch.tasks.tiny import VALUES, TinyKind, TinyKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.tasks.task import Task


class Cifar(TinyKind):
    """CIFAR-10, or made-up coloured objects."""

    name = "cifar"
    what = "CIFAR-10's images"
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

    def recorded(self, knobs: TinyKnobs, data_dir: Path) -> Task:
        from dpsgd_torch.tasks.cifar.task import cifar_task

        return cifar_task(knobs.norm, data_dir)

    def synthetic(self, knobs: TinyKnobs, rows: int, test_rows: int, seed: int) -> Task:
        from dpsgd_torch.tasks.cifar.task import made_up_cifar_task

        return made_up_cifar_task(knobs.norm, rows, test_rows, seed)

    def network(self, generator: torch.Generator, outputs: int, norm: str) -> nn.Module:
        from dpsgd_torch.tasks.cifar.model import resnet8

        return resnet8(generator, outputs, norm)

    def inputs(self, count: int, seed: int) -> torch.Tensor:
        import torch

        from dpsgd_torch.tasks.cifar.synthetic import synthetic_objects

        return torch.from_numpy(synthetic_objects(count, seed)[0])
