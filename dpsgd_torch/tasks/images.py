"""Colour images as a task: a small network, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dpsgd_torch.tasks.augment import shifted
from dpsgd_torch.tasks.task import Pair, Task, accuracy

MADE_UP = (
    "The images were made up by a program, not photographed: nobody's privacy is at stake and "
    "nothing is learnt of how the classifier does on real ones."
)
ONE_IMAGE = "The unit of privacy is one image: who stands in several is protected as often as that."


def image_task(
    train: Pair,
    test: Pair,
    model: Callable[[torch.Generator], nn.Module],
    labels: tuple[str, ...],
    *,
    shift: int,
    synthetic: bool,
) -> Task:
    """Of images (n, 3, side, side) in [0, 1]; views of them are moved and mirrored."""
    return Task(
        train=train,
        test=test,
        make_model=model,
        loss=nn.CrossEntropyLoss(),
        metrics={"accuracy": accuracy},
        labels=labels,
        synthetic=synthetic,
        note=MADE_UP if synthetic else ONE_IMAGE,
        augment=shifted(shift, flips=True),
    )
