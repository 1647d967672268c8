"""What is exported: a finished run's model, what its numbers mean, and what may be said of it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.export.facts import Facts, promise_of, weights_fit
from dpsgd_torch.app.stored_config import read_config
from dpsgd_torch.errors import DataError, ExportError, RunError
from dpsgd_torch.export.promise import Promised, privacy_told
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.storage.sealed import tensors_from_bytes
from dpsgd_torch.tasks.registry import architecture, kind_of, load_task
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.version import __version__

NOT_COVERED = "PRIVATE RECORDS: these numbers are not covered by epsilon"


@dataclass(frozen=True)
class Source:
    """A run as the exporters need it; ``provenance`` goes into every file they write."""

    folder: RunFolder
    config: RunConfig
    model: nn.Module
    known: Facts
    facts: dict[str, Any]
    provenance: dict[str, str]
    statement: str
    promised: Promised

    @property
    def labels(self) -> tuple[str, ...]:
        return self.known.labels

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.known.input_shape

    @property
    def input_range(self) -> tuple[float, float]:
        return self.known.input_range

    @property
    def output(self) -> str:
        return self.known.output

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
    if refusal := kind_of(config.dataset).not_exported:
        raise ExportError(f"preset = {config.preset}: {refusal}")
    known = Facts.of(facts, config, path / "task.json")
    file = path / "model.safetensors"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path}: has no model.safetensors; finish the run first: "
            f"python -m dpsgd_torch.train --resume {path}"
        ) from error
    model = architecture(config, known.labels)
    if wrong := weights_fit(model, tensors_from_bytes(content, file)):
        raise RunError(
            f"{file}: does not fit the model of preset {config.preset} ({wrong}); export with the "
            "version it was trained with"
        )
    promise = promise_of(config, path)
    told = privacy_told(_read(folder, "privacy.json"), promise, path)
    told |= {
        "run": _text(path.resolve().name),
        "preset": config.preset,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "version": f"dpsgd_torch {__version__}",
    }
    if known.synthetic:
        told["data"] = "synthetic"
    words = _statement(folder, told)
    return Source(folder, config, model.eval(), known, facts, told, words, promise.to)


def _statement(folder: RunFolder, told: dict[str, str]) -> str:
    """The words of statement.txt, which must state the ε that is told."""
    path = folder.path / "statement.txt"
    try:
        words = path.read_text()
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); restore it") from error
    flat, bound = " ".join(words.split()), told["epsilon"].removeprefix("at most ")
    stated = re.findall(r"ε = ([0-9.e+-]+|∞)[, ]", flat.partition("Guarantee:")[2])
    if told["epsilon"].startswith("at most"):
        fits = bool(stated) and float(stated[0].replace("∞", "inf")) >= float(bound) - 1e-4
        fits = fits and "Not covered" in flat
    else:
        fits = "Guarantee:" not in flat or stated[:1] == ["∞"]
    if not fits or not words.endswith("\n"):
        raise RunError(
            f"{path}: does not state the ε of privacy.json, {bound}; restore it: "
            f"python -m dpsgd_torch.train --resume {folder.path} writes it anew"
        )
    return words


def _config(folder: RunFolder) -> RunConfig:
    _read(folder, "config.json")
    return read_config(folder)


def _text(name: str) -> str:
    """A file's name as text, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def _read(folder: RunFolder, name: str) -> Any:
    if not folder.path.is_dir():
        raise RunError(f"run = {folder.path}: there is no such folder; name that of a run")
    folder.refuse_links()
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
