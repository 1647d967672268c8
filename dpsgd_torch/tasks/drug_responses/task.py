"""Drug responses: gene expression and cell viability in, which mechanisms a drug acts by out."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.drug_responses.files import (
    COLUMNS,
    LIMIT,
    Responses,
    read_responses,
    write_submission,
)
from dpsgd_torch.tasks.drug_responses.model import SilentControls, log_loss, response_mlp
from dpsgd_torch.tasks.drug_responses.synthetic import NOTE, synthetic_responses
from dpsgd_torch.tasks.task import Pair, Predictions, Table, Task

FEATURES = ("all", "notebook")
_TIME, _TYPE = COLUMNS.index("cp_time"), COLUMNS.index("cp_type")
_SILENT = (
    "WITH class knowledge: rows treated with the vehicle alone have no mechanism, as the data's "
    "description says; their odds begin at e^-6 of what the frequencies say. No private row went "
    "into that, and ε does not cover how it was chosen."
)
_NOTEBOOK = (
    "The notebook's list of columns was chosen by looking at the competition's data without "
    "privacy: on that data it is not covered by ε."
)


def response_task(
    data_dir: Path | None,
    hidden: tuple[int, ...],
    features: str,
    dropout: float = 0.0,
    *,
    silent: bool = False,
) -> Task:
    """Training and test rows, cp_time scaled to [−1, 1]; made-up ones without a folder.

    A folder's test rows have no targets, so nothing is scored on them: they are predicted.

    Args:
        hidden: widths of the network's inner layers.
        dropout: before its inner layers.
        features: "all", or "notebook" for its list of 696 columns.
        silent: whether controls begin without a mechanism.
    """
    if features not in FEATURES:
        raise ConfigError(f"features = {features}: must be one of {', '.join(FEATURES)}")
    train, test = read_responses(data_dir) if data_dir else synthetic_responses()
    kept = _notebook_columns() if features == "notebook" else np.arange(len(COLUMNS))
    notes = [] if data_dir else [NOTE]
    if data_dir and features == "notebook":
        notes.append(_NOTEBOOK)

    def make_model(
        generator: torch.Generator, inputs: int, frequencies: torch.Tensor | None
    ) -> torch.nn.Module:
        labels = len(train.labels)
        network = response_mlp(
            generator, inputs, labels, hidden, dropout=dropout, frequencies=frequencies
        )
        return SilentControls(network, int(np.flatnonzero(kept == _TYPE)[0])) if silent else network

    inputs = _inputs(train, kept)
    assert train.targets is not None
    return Task(
        train=(inputs, torch.from_numpy(train.targets)),
        test=None if test.targets is None else _pair(test, kept),
        make_model=lambda generator: make_model(generator, inputs.shape[1], None),
        loss=log_loss,
        metrics={},
        labels=train.labels,
        input_range=(-LIMIT, LIMIT),
        synthetic=data_dir is None,
        note=" ".join(notes),
        prior=_SILENT if silent else "",
        units={name: torch.from_numpy(codes) for name, codes in train.units.items()},
        table=Table(
            columns=tuple(COLUMNS[i] for i in kept),
            low=_ranges(kept)[0],
            high=_ranges(kept)[1],
            make_model=make_model,
        ),
        predictions=Predictions(
            inputs=_inputs(test, kept),
            write=lambda path, found: write_submission(path, test.ids, test.labels, found),
        ),
    )


def _pair(rows: Responses, kept: NDArray[np.int64]) -> Pair:
    assert rows.targets is not None
    return _inputs(rows, kept), torch.from_numpy(rows.targets)


def _inputs(rows: Responses, kept: NDArray[np.int64]) -> torch.Tensor:
    inputs = rows.inputs.copy()
    inputs[:, _TIME] = (inputs[:, _TIME] - 48) / 24
    return torch.from_numpy(inputs[:, kept])


def _ranges(kept: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each column can hold, as the data's description says."""
    low, high = np.full(len(COLUMNS), -LIMIT), np.full(len(COLUMNS), LIMIT)
    low[:3], high[:3] = 0.0, 1.0
    low[_TIME] = -1.0
    return low[kept], high[kept]


def _notebook_columns() -> NDArray[np.int64]:
    text = (
        resources.files("dpsgd_torch.tasks.drug_responses")
        .joinpath("notebook_columns.json")
        .read_text()
    )
    return np.array(json.loads(text), dtype=np.int64)
