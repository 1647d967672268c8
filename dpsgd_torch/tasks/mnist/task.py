"""MNIST and Fashion-MNIST with the CNN of the TensorFlow Privacy tutorials."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dpsgd_torch.tasks.augment import shifted
from dpsgd_torch.tasks.mnist.fetch import load_splits
from dpsgd_torch.tasks.task import Pair, Task, accuracy, glorot_

_DIGITS = tuple("0123456789")
_FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "ankle boot")  # fmt: skip


def mnist_cnn(generator: torch.Generator, dropout: float = 0.0) -> nn.Module:
    """The tutorials' CNN, (batch, 1, 28, 28) → (batch, 10): 26,010 parameters.

    Padding 3 is what 'same' means for a kernel of 8 at stride 2 on 28 pixels.

    >>> sum(p.numel() for p in mnist_cnn(torch.Generator()).parameters())
    26010
    """
    layers = [
        nn.Conv2d(1, 16, kernel_size=8, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, kernel_size=4, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
    ]
    if dropout:
        layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(32, 10))
    return glorot_(nn.Sequential(*layers), generator)


def mnist_task(name: str, data_dir: Path | None, dropout: float) -> Task:
    """``name`` is ``"mnist"`` or ``"fashion-mnist"``; pixels are scaled to [0, 1]."""
    train, test = load_splits(name, data_dir)
    return Task(
        train=_tensors(train),
        test=_tensors(test),
        make_model=lambda generator: mnist_cnn(generator, dropout),
        loss=nn.CrossEntropyLoss(),
        metrics={"accuracy": accuracy},
        labels=_FASHION if name == "fashion-mnist" else _DIGITS,
        augment=shifted(2, flips=name == "fashion-mnist"),
    )


def _tensors(split: object) -> Pair:
    images: torch.Tensor = split.data  # type: ignore[attr-defined]
    labels: torch.Tensor = split.targets  # type: ignore[attr-defined]
    return images.unsqueeze(1).float() / 255, labels.long()
