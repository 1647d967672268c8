"""Image classification as a task: CIFAR-10 or made-up objects, and ResNet-8."""

from __future__ import annotations

from pathlib import Path

import torch

from dpsgd_torch.tasks.cifar.files import LABELS, Images, read_cifar
from dpsgd_torch.tasks.cifar.model import resnet8
from dpsgd_torch.tasks.cifar.synthetic import LABELS as MADE_UP_LABELS
from dpsgd_torch.tasks.cifar.synthetic import synthetic_objects
from dpsgd_torch.tasks.images import image_task
from dpsgd_torch.tasks.task import Pair, Task


def made_up_cifar_task(norm: str, rows: int, test_rows: int, seed: int) -> Task:
    """The task on so many made-up objects of ten shapes."""
    parts = [synthetic_objects(*part) for part in ((rows, seed), (test_rows, seed + 1))]
    train, test = ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in parts)
    return _task(norm, train, test, MADE_UP_LABELS, synthetic=True)


def cifar_task(norm: str, data_dir: Path) -> Task:
    """The task on CIFAR-10."""
    train, test = read_cifar(data_dir)
    return _task(norm, _pair(train), _pair(test), LABELS, synthetic=False)


def _task(norm: str, train: Pair, test: Pair, labels: tuple[str, ...], *, synthetic: bool) -> Task:
    return image_task(
        train,
        test,
        lambda generator: resnet8(generator, len(labels), norm),
        labels,
        shift=3,
        synthetic=synthetic,
    )


def _pair(images: Images) -> Pair:
    return torch.from_numpy(images.pixels).float() / 255, torch.from_numpy(images.label)
