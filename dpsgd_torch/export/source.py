"""What is exported: a finished run's model, what its numbers mean, and what may be said of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from accountant.statement import round_up
from dpsgd_torch.config import RunConfig
from dpsgd_torch.errors import DataError, ExportError, RunError, told
from dpsgd_torch.tasks.registry import architecture, load_task
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.run_folder import RunFolder
from dpsgd_torch.version import __version__

COVERED = "the declared input range, and inputs made up without the data"
NOT_COVERED = "PRIVATE RECORDS: these numbers are not covered by epsilon"


@dataclass(frozen=True)
class Source:
    """A run as the exporters need it; ``provenance`` goes into every file they write."""

    folder: RunFolder
    config: RunConfig
    model: nn.Module
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_range: tuple[float, float]
    output: str
    facts: dict[str, Any]
    provenance: dict[str, str]

    @property
    def name(self) -> str:
        """An identifier: letters, digits and underscores."""
        return self.config.preset.replace("-", "_")


def read_run(path: Path) -> Source:
    """The finished run in a folder.

    Raises:
        RunError: no run, an unfinished one, or one whose files do not fit together.
    """
    folder = RunFolder(path)
    facts = _read(folder, "task.json")
    config = _config(folder)
    if config.dataset == "responses":
        raise ExportError(
            f"preset = {config.preset}: its layer norms cannot be carried to a microcontroller; "
            "load model.safetensors into dpsgd_torch.tasks.response_model.response_mlp"
        )
    try:
        weights = (path / "model.safetensors").read_bytes()
    except OSError as error:
        raise RunError(
            f"{path}: has no model.safetensors; finish the run first: "
            f"python -m dpsgd_torch.train --resume {path}"
        ) from error
    labels = tuple(facts["labels"])
    model = architecture(config, labels)
    try:
        model.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise RunError(
            f"{path / 'model.safetensors'}: does not fit the model of preset {config.preset} "
            f"({told(error)}); export with the version it was trained with"
        ) from error
    low, high = facts["input_range"]
    return Source(
        folder=folder,
        config=config,
        model=model.eval(),
        labels=labels,
        input_shape=tuple(facts["input_shape"]),
        input_range=(float(low), float(high)),
        output=facts["output"],
        facts=facts,
        provenance=_provenance(folder, config, facts, weights),
    )


def _provenance(
    folder: RunFolder, config: RunConfig, facts: dict[str, Any], weights: bytes
) -> dict[str, str]:
    told = {
        "epsilon": "none: trained without differential privacy",
        "run": folder.path.resolve().name,
        "preset": config.preset,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "version": f"dpsgd_torch {__version__}",
    }
    if config.dp:
        spent = _read(folder, "privacy.json")
        bound = spent["epsilon"]
        told["epsilon"] = "infinite" if bound is None else f"at most {round_up(bound)}"
        told["delta"] = repr(spent["delta"])
        told["relation"] = f"{spent['relation']}, the unit of privacy is one record"
    if facts["synthetic"]:
        told["data"] = "synthetic"
    return told


def _config(folder: RunFolder) -> RunConfig:
    fields = _read(folder, "config.json")
    try:
        return RunConfig(**{**fields, "seed": 0 if fields["seed"] else None})
    except (TypeError, KeyError) as error:
        raise RunError(
            f"{folder.path / 'config.json'}: is not a configuration of this version ({error}); "
            "export with the version it was trained with"
        ) from error


def _read(folder: RunFolder, name: str) -> Any:
    if not folder.path.is_dir():
        raise RunError(f"run = {folder.path}: there is no such folder; name that of a run")
    if not (folder.path / name).is_file():
        raise RunError(
            f"{folder.path}: has no {name}; name the folder of a finished run, as "
            "python -m dpsgd_torch.train leaves it"
        )
    return folder.read_json(name)


def load_data(source: Source, data_dir: Path | None) -> Task:
    """The run's task with its data.

    Raises:
        DataError: it is other data: of made-up recordings in place of one's own, or other labels.
    """
    task = load_task(source.config, data_dir)
    if task.to_json() != source.facts:
        given = f"data_dir = {data_dir}" if data_dir else "data_dir: is not given, and what it"
        raise DataError(
            f"{given} leads to is not what {source.folder.path} was trained on; pass --data-dir "
            "with the folder it was trained from"
        )
    return task


def float_outputs(source: Source, inputs: torch.Tensor) -> torch.Tensor:
    """What the model itself answers, (batch, classes)."""
    if inputs.shape[1:] != torch.Size(source.input_shape):
        raise ExportError(
            f"inputs = {tuple(inputs.shape)}: the model takes (batch, *{source.input_shape})"
        )
    with torch.no_grad():
        answer: torch.Tensor = source.model(inputs)
    return answer
