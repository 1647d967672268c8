"""scikit-learn's bundled 8×8 digits: real, embedded, and trained in seconds without a network."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.tasks.augment import shifted
from dpsgd_torch.tasks.task import Task, accuracy, glorot_

TRAIN_SIZE = 1437  # of 1,797; a seeded split, so that every run agrees on who is private


def digits_cnn(generator: torch.Generator, dropout: float = 0.0) -> nn.Module:
    """A small CNN, (batch, 1, 8, 8) → (batch, 10)."""
    layers = [
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(256, 10),
    ]
    return glorot_(nn.Sequential(*layers), generator)


def digits_task(dropout: float) -> Task:
    """1,437 training and 360 test images, pixels scaled to [0, 1]."""
    rows = _bundled()
    images = torch.from_numpy(rows[:, :-1]).float().view(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(rows[:, -1]).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    train, test = order[:TRAIN_SIZE], order[TRAIN_SIZE:]
    return Task(
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        make_model=lambda generator: digits_cnn(generator, dropout),
        loss=nn.CrossEntropyLoss(),
        metrics={"accuracy": accuracy},
        labels=tuple("0123456789"),
        augment=shifted(1),
    )


def _bundled() -> NDArray[np.float64]:
    """(1797, 65): 64 pixels 0 … 16 and the digit, from scikit-learn's own file.

    Read without loading the library, which takes as long as torch; by it, where the file has moved.
    """
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.exists():
            with gzip.open(path, "rt") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
