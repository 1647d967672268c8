"""What is asked of a released model: a number for each canary that is larger for members.

* **margin**: its label's output less the mean of the others', less the same beside it. Of a model
  that is linear in its features this is linear in the noise, and all that the noise left of it.
* **energy**: the log of the mean square of all outputs on the data, centred: another scale of noise
  or of updates shows there, whatever the canary is. Taken both ways; asked for one canary alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dpsgd_torch.audit.attacks.canary import Made
from dpsgd_torch.audit.attacks.training import answers
from dpsgd_torch.errors import RunError, told

_ASKED = 256  # rows of the data that are asked for the energy
_SHIFT = 0.02  # of the largest feature: how far queries of one canary lie from it

Score = Callable[[Any, Any], Any]
Scores = dict[str, np.ndarray]


def scores_of(model: Any, made: Made, *, queries: int, seed: int, own: Score | None) -> Scores:
    """Statistic → one number a canary; released vectors are kept as they are, for want of a score.

    Raises:
        RunError: what the model says is not finite, or the user's own score fails.
    """
    if own is not None:
        found = {"own": _own(model, made, own)}
    elif isinstance(model, np.ndarray):
        found = {"vector": model}
    else:
        found = {"margin": _margins(model, made, queries, seed)}
        if len(made.beside) == 1:
            found["energy"] = np.array([_energy(model, made.base[0][:_ASKED])])
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise RunError(
                f"{name}: what is released is not finite (NaN or infinite); train longer steps "
                "with a smaller rate, or look at the training function"
            )
    return found


def _own(model: Any, made: Made, own: Score) -> np.ndarray:
    values = []
    for row in range(len(made.beside)):
        canary = made.rows[0][row], made.rows[1][row]
        try:
            values.append(float(own(model, canary)))
        except Exception as error:
            raise RunError(f"score(released, canary): raises {told(error)}; mend it") from None
    return np.array(values)


def _margins(model: Any, made: Made, queries: int, seed: int) -> np.ndarray:
    inputs, targets = made.rows
    total = np.zeros(len(inputs))
    generator = torch.Generator().manual_seed(seed)
    reach = _SHIFT * float(inputs.abs().max())
    for query in range(queries):
        moved = inputs
        if query and inputs.is_floating_point():
            moved = inputs + reach * torch.randn(inputs.shape, generator=generator)
        told_of, beside = answers(model, moved), answers(model, made.beside)
        total += _margin(told_of, targets) - _margin(beside, targets)
    return total / queries


def _margin(outputs: np.ndarray, targets: torch.Tensor) -> np.ndarray:
    if targets.is_floating_point():
        wanted = targets.double().numpy().reshape(len(outputs), -1)
        return -((outputs - wanted) ** 2).mean(1)
    rows, labels = np.arange(len(outputs)), targets.numpy().ravel()
    if outputs.shape[1] == 1:  # one logit of two classes
        return outputs[:, 0] * np.where(labels > 0, 1.0, -1.0)
    if labels.max() >= outputs.shape[1]:
        raise RunError(
            f"model: answers {outputs.shape[1]} numbers, but labels go up to {labels.max()}; must "
            "give one a class"
        )
    own = outputs[rows, labels]
    return own - (outputs.sum(1) - own) / (outputs.shape[1] - 1)


def _energy(model: Any, inputs: torch.Tensor) -> float:
    outputs = answers(model, inputs)
    if outputs.shape[1] > 1:
        outputs = outputs - outputs.mean(1, keepdims=True)
    return float(np.log((outputs**2).mean() + 1e-300))
