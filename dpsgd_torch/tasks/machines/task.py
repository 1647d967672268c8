"""Anomaly detection as a task: an autoencoder of usual sounds, and how badly it copies others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from dpsgd_torch.tasks.machines.features import RANGE, VALUES
from dpsgd_torch.tasks.machines.files import Vectors, read_machines
from dpsgd_torch.tasks.machines.model import autoencoder
from dpsgd_torch.tasks.machines.synthetic import synthetic_machines
from dpsgd_torch.tasks.task import Pair, Task

_SYNTHETIC = (
    "The sounds were made up by a model of machines, not recorded: nobody's privacy is at stake "
    "and nothing is learnt of how the detector does on real ones."
)
_UNIT = (
    "An example is five frames of a recording. With --privacy-unit recording, as the preset has "
    "it, the unit of privacy is a whole recording, of which at most --rows-per-unit vectors are "
    "drawn each step; with --privacy-unit record it is one vector, which says little of a "
    "recording of many."
)


def made_up_machines_task(norm: str, rows: int, test_rows: int, seed: int, every: int) -> Task:
    """The task on so many made-up recordings, half of those to test on with a fault."""
    train = synthetic_machines(rows, 0, seed, every)
    test = synthetic_machines(test_rows, test_rows // 2, seed + 1, every)
    return _task(norm, train, test, synthetic=True)


def machines_task(norm: str, data_dir: Path, every: int) -> Task:
    """The task on one machine's recordings."""
    return _task(norm, *read_machines(data_dir, every), synthetic=False)


def copying_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each vector's copy; targets are as ``pair_of`` makes them.

    >>> copying_error(torch.ones(1, 640), torch.zeros(1, 642))
    tensor([1.])
    """
    return (outputs - targets[:, :VALUES]).square().mean(dim=1)


def auc(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Area under the ROC curve of recordings, by the mean error of each one's vectors.

    The chance that an unusual recording is copied worse than a usual one, a tie counted half
    [Hanley, McNeil 1982]; NaN where all are of a kind.

    >>> targets = torch.zeros(2, 642)
    >>> targets[1, 640:] = 1
    >>> auc(torch.tensor([[0.1], [0.2]]).expand(2, 640), targets)
    tensor(1., dtype=torch.float64)
    """
    error = copying_error(outputs, targets).double().numpy()
    _, first, which = np.unique(targets[:, VALUES].numpy(), return_index=True, return_inverse=True)
    score = np.bincount(which, error) / np.bincount(which)
    unusual = targets[:, VALUES + 1].numpy()[first] > 0
    m, n = int(unusual.sum()), int((~unusual).sum())
    beaten = rankdata(score)[unusual].sum() - m * (m + 1) / 2
    area = beaten / (m * n) if m and n else float("nan")
    return torch.tensor(area, dtype=torch.float64)


def pair_of(vectors: Vectors) -> Pair:
    """Inputs (n, 640); targets (n, 642): the same, the recording's number, 1 where unusual."""
    recording, unusual = vectors.recording, vectors.unusual[vectors.recording]
    columns = np.column_stack([recording, unusual]).astype(np.float32)
    targets = torch.from_numpy(np.hstack([vectors.values, columns]))
    return targets[:, :VALUES], targets


def _task(norm: str, train: Vectors, test: Vectors, *, synthetic: bool) -> Task:
    return Task(
        train=pair_of(train),
        test=pair_of(test),
        make_model=lambda generator: autoencoder(generator, norm),
        loss=copying_error,
        metrics={"AUC": auc},
        labels=(),
        input_range=RANGE,
        output="values",
        synthetic=synthetic,
        note=f"{_SYNTHETIC} {_UNIT}" if synthetic else _UNIT,
        units={"recording": torch.from_numpy(train.recording)},
    )
