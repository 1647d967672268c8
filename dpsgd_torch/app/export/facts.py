"""What a run's folder says of its model's numbers and of ε, checked: the folder may be anybody's.

All of it goes into paths, C files and metadata. What is known otherwise (shapes, ranges, labels of
public data sets) must be that; what is not (gestures' names) must be plain text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from accountant import PrivacyError, Relation
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.errors import RunError, shown, told
from dpsgd_torch.export.declared import is_plain
from dpsgd_torch.export.promise import ADVICE, Promise
from dpsgd_torch.tasks.registry import kind_of


@dataclass(frozen=True)
class Facts:
    """What task.json says, and what holds of it for that configuration."""

    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_range: tuple[float, float]
    output: str
    synthetic: bool

    @classmethod
    def of(cls, data: Any, config: RunConfig, where: Path) -> Facts:
        """Those in ``data``, as the JSON file ``where`` holds it.

        Raises:
            RunError: something that no run of ``config`` would have left.
        """
        kind = kind_of(config.dataset)
        low, high = kind.input_range(config.task)
        shape = tuple(kind.public_inputs(config.task)(1).shape[1:])
        expected: dict[str, Any] = {
            "input_shape": list(shape),
            "input_range": [low, high],
            "output": kind.output(config.task),
        }
        if not isinstance(data, dict):
            raise RunError(f"{where}: holds no object; {ADVICE}")
        for name, value in expected.items():
            if data.get(name) != value:
                raise RunError(
                    f"{where}: {name} = {shown(data.get(name))}: must be {value} for "
                    f"{config.preset}; {ADVICE}"
                )
        labels, synthetic = data.get("labels"), data.get("synthetic")
        values = expected["output"] == "values"
        if not (
            isinstance(labels, list)
            and all(map(is_plain, labels))
            and (not labels if values else len(labels) > 1)
        ):
            raise RunError(
                f"{where}: labels = {shown(labels)}: must be names of printable characters, none "
                f"where outputs are values; {ADVICE}"
            )
        if len(set(labels)) < len(labels):
            raise RunError(f"{where}: labels = {shown(labels)}: must differ; {ADVICE}")
        if not isinstance(synthetic, bool) or (synthetic and not kind.may_be_synthetic):
            raise RunError(
                f"{where}: synthetic = {shown(synthetic)}: must be true or false, and true for "
                f"made-up data alone; {ADVICE}"
            )
        return cls(tuple(labels), shape, (low, high), str(expected["output"]), synthetic)


def promise_of(config: RunConfig, folder: Path) -> Promise:
    """What config.json says was promised, and to whom.

    Raises:
        RunError: ids that no data of that task has.
    """
    if config.label_epsilon is not None:
        return Promise("config.json", Relation.LABEL_CHANGE, "one label")
    if not config.dp:
        return Promise("config.json", None)
    if config.privacy_unit not in ("record", *kind_of(config.dataset).units):
        raise RunError(
            f"{folder / 'config.json'}: privacy_unit = {shown(config.privacy_unit)}: the data of "
            f"{config.preset} has no such ids; {ADVICE}"
        )
    return Promise("config.json", Relation.ADD_OR_REMOVE_ONE, config.privacy_unit)


def weights_fit(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> str:
    """Load them; "" or why they are not the model's."""
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, PrivacyError) as error:
        return told(error)
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    return f"{bad[0]} holds what is no number" if bad else ""
