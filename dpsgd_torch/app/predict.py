"""What a run's models say together: the mean of their probabilities, on test rows and in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.evaluation import in_batches

_CERTAIN = 1e-7  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class Predicted:
    """On the public test rows of a multi-label task: how the models' mean does, label by label.

    ``predicted`` and ``observed`` are (labels,) mean probabilities and frequencies.
    """

    log_loss: float | None = None
    predicted: NDArray[np.float64] | None = None
    observed: NDArray[np.float64] | None = None


def predict(models: Sequence[nn.Module], task: Task, folder: RunFolder) -> Predicted:
    """Write predictions.csv where the task asks for one, and score the test rows it knows."""
    if task.predictions is None:
        return Predicted()
    task.predictions.write(
        folder.path / "predictions.csv", _probabilities(models, task.predictions.inputs)
    )
    if task.test is None:
        return Predicted()
    found, targets = _probabilities(models, task.test[0]), task.test[1].double().numpy()
    loss = -(targets * np.log(found) + (1 - targets) * np.log1p(-found)).mean()
    return Predicted(float(loss), found.mean(axis=0), targets.mean(axis=0))


def _probabilities(models: Sequence[nn.Module], inputs: torch.Tensor) -> NDArray[np.float64]:
    """(rows, labels) mean over the models."""
    total = np.zeros(())
    for model in models:
        device = next(model.parameters()).device
        batches = ((rows.to(device), None) for rows in inputs.split(1000))
        parts = in_batches(model, batches, lambda outputs, _: outputs.sigmoid().cpu())
        total = total + torch.cat(parts).double().numpy()
    found: NDArray[np.float64] = np.clip(total / len(models), _CERTAIN, 1 - _CERTAIN)
    return found
