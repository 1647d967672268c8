"""Drug responses in the files of the public competition: read, refused where wrong, written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.drug_responses.csv_table import (
    CsvTable,
    read_header,
    read_table,
    write_table,
)

GENES = tuple(f"g-{i}" for i in range(772))
CELLS = tuple(f"c-{i}" for i in range(100))
COLUMNS: tuple[str, ...] = ("cp_type", "cp_time", "cp_dose", *GENES, *CELLS)
LIMIT = 10.0  # where the published values are clipped
DOWNLOAD = "put it there, or leave out --data-dir for made-up data"

_CATEGORIES: dict[str, dict[str, float]] = {
    "cp_type": {"trt_cp": 0.0, "ctl_vehicle": 1.0},
    "cp_time": {"24": 24.0, "48": 48.0, "72": 72.0},
    "cp_dose": {"D1": 0.0, "D2": 1.0},
}
_MEASURED = (*GENES, *CELLS)
_ID = "sig_id"
_LONGEST_NAME = 100  # characters
_NAMED = 5  # columns that a message names before it only counts
_FILES = {
    "train": "train_features.csv",
    "targets": "train_targets_scored.csv",
    "test": "test_features.csv",
    "units": "train_drug.csv",
    "sample": "sample_submission.csv",
}


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Rows of one part, training or test.

    Args:
        ids: sig_id of each row.
        inputs: (n, 875) in the order of COLUMNS: cp_type trt_cp 0 and ctl_vehicle 1, cp_time in
            hours, cp_dose D1 0 and D2 1, the rest as measured, in [-10, 10].
        targets: (n, labels) of 0 and 1; None for rows whose targets are not known.
        labels: names of the targets' columns.
        units: for each further column of ids, such as drug_id, the code 0, 1, … of each row;
            equal codes, one unit. Codes follow the sorted names.
    """

    ids: tuple[str, ...]
    inputs: NDArray[np.float32]
    targets: NDArray[np.float32] | None
    labels: tuple[str, ...]
    units: dict[str, NDArray[np.int64]]


def read_responses(folder: Path) -> tuple[Responses, Responses]:
    """Training and test rows of a folder, in the order of the feature files.

    The folder holds train_features.csv, train_targets_scored.csv and test_features.csv; where
    train_drug.csv is there, each of its columns beside sig_id becomes an entry of ``units``; where
    sample_submission.csv is there, it must have the same labels and test rows. Columns may stand in
    any order and rows of different files too: they are joined by sig_id.

    A value beyond ±10 is refused, not clamped: the published values are clipped there, so one
    beyond is of another scale (raw intensities, say), for which the range of ±10 that private
    statistics are later built on would be meaningless although no guarantee would break.

    Raises:
        DataError: what is missing or wrong, with file, line and column where they apply.
    """
    train_table = _read_features(folder / _FILES["train"])
    test_table = _read_features(folder / _FILES["test"])
    _refuse_shared(train_table, test_table)
    labels, targets = _read_targets(folder / _FILES["targets"], train_table)
    sample = folder / _FILES["sample"]
    if sample.exists():
        _check_sample(sample, labels, test_table)
    units = folder / _FILES["units"]
    train = Responses(
        ids=train_table.text[_ID],
        inputs=_inputs(train_table),
        targets=targets,
        labels=labels,
        units=_read_units(units, train_table) if units.exists() else {},
    )
    test = Responses(
        ids=test_table.text[_ID],
        inputs=_inputs(test_table),
        targets=None,
        labels=labels,
        units={},
    )
    return train, test


def write_submission(
    path: Path,
    ids: Sequence[str],
    labels: Sequence[str],
    probabilities: NDArray[np.floating],
) -> None:
    """Predictions in the competition's format: sig_id and a column a label; whole, or not there.

    Args:
        probabilities: (rows, labels), each in [0, 1]; written so that they read back exactly.

    Raises:
        DataError: another shape, a sig_id that stands twice, or what is no probability.
    """
    expected = (len(ids), len(labels))
    if probabilities.shape != expected:
        raise DataError(
            f"probabilities: have shape {probabilities.shape}; must be (rows, labels) = {expected}"
        )
    if len(set(ids)) != len(ids):
        raise DataError(f"ids = {len(ids)}: only {len(set(ids))} differ; give each row its own")
    wrong = np.argwhere(~((probabilities >= 0) & (probabilities <= 1)))
    for row, column in wrong:
        raise DataError(
            f"probabilities = {probabilities[row, column]} at {ids[row]}, {labels[column]}: must "
            "lie in [0, 1]; pass probabilities, not logits"
        )
    rows = ((i, *map(str, row)) for i, row in zip(ids, probabilities, strict=True))
    write_table(path, (_ID, *labels), rows)


def write_responses(folder: Path, train: Responses, test: Responses) -> None:
    """The same files from ``Responses``: reading them gives these back, but for test targets.

    The layout has no place for test targets and units of test rows: they are not written. Names of
    units are made from their codes.

    Raises:
        DataError: training rows without targets.
    """
    if train.targets is None:
        raise DataError("train.targets = None: training rows need targets; swap train and test?")
    header = (_ID, *COLUMNS)
    write_table(folder / _FILES["train"], header, _feature_rows(train))
    write_table(folder / _FILES["test"], header, _feature_rows(test))
    targets = train.targets.astype(np.int64).tolist()
    rows = ((i, *row) for i, row in zip(train.ids, targets, strict=True))
    write_table(folder / _FILES["targets"], (_ID, *train.labels), rows)
    even = np.full((len(test.ids), len(train.labels)), 0.5)
    write_submission(folder / _FILES["sample"], test.ids, train.labels, even)
    if train.units:
        names = [[f"{name}_{code:07d}" for code in codes] for name, codes in train.units.items()]
        write_table(
            folder / _FILES["units"],
            (_ID, *train.units),
            zip(train.ids, *names, strict=True),
        )


def _read_features(path: Path) -> CsvTable:
    header = read_header(path, DOWNLOAD)
    _check_columns(path, header, (_ID, *COLUMNS))
    table = read_table(path, header, (_ID, *_CATEGORIES), _MEASURED)
    _refuse_twice(table)
    for name, values in _CATEGORIES.items():
        for row, value in enumerate(table.text[name]):
            if value not in values:
                raise DataError(
                    f"{table.at(row)}, {name} = {value!r}: must be {' or '.join(values)}; correct "
                    "it, or take the row out"
                )
    for row, column in np.argwhere(np.abs(table.numbers) > LIMIT):
        raise DataError(
            f"{table.at(row)}, {_MEASURED[column]} = {table.numbers[row, column]:g}: is beyond "
            f"±{LIMIT:g}, where the published data are clipped; is it another file? If it is the "
            "same measurement, clip it"
        )
    return table


def _inputs(table: CsvTable) -> NDArray[np.float32]:
    given = [[_CATEGORIES[name][value] for value in table.text[name]] for name in _CATEGORIES]
    return np.concatenate([np.array(given, np.float32).T, table.numbers], axis=1)


def _read_targets(path: Path, features: CsvTable) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    header = read_header(path, DOWNLOAD)
    _check_columns(path, header, (_ID,), more=True)
    labels = tuple(name for name in header if name != _ID)
    if not labels:
        raise DataError(f"{path}, line 1: has no target columns; needs one a label beside {_ID}")
    table = read_table(path, header, (_ID,), labels)
    order = _join(features, table)
    for row, column in np.argwhere((table.numbers != 0) & (table.numbers != 1)):
        raise DataError(
            f"{table.at(row)}, {labels[column]} = {table.numbers[row, column]:g}: must be 0 or 1; "
            "correct it"
        )
    return labels, table.numbers[order]


def _read_units(path: Path, features: CsvTable) -> dict[str, NDArray[np.int64]]:
    header = read_header(path, DOWNLOAD)
    _check_columns(path, header, (_ID,), more=True)
    names = [name for name in header if name != _ID]
    if not names:
        raise DataError(f"{path}, line 1: has {_ID} alone; add drug_id, or take the file away")
    table = read_table(path, header, (_ID, *names), ())
    order = _join(features, table)
    return {
        name: np.unique(np.array(table.text[name], np.str_), return_inverse=True)[1][order]
        for name in names
    }


def _check_sample(path: Path, labels: tuple[str, ...], test: CsvTable) -> None:
    header = read_header(path, DOWNLOAD)
    _check_columns(path, header, (_ID, *labels))
    _join(test, read_table(path, header, (_ID,), ()))


def _check_columns(
    path: Path, header: Sequence[str], expected: Sequence[str], more: bool = False
) -> None:
    present, known = set(header), set(expected)
    missing = [name for name in expected if name not in present]
    extra = [] if more else [name or "(no name)" for name in header if name not in known]
    odd = [name for name in header if not (name.isprintable() and 0 < len(name) <= _LONGEST_NAME)]
    if more and odd:
        raise DataError(
            f"{path}, line 1: {odd[0][:_LONGEST_NAME]!a} names a column and is published; give it "
            f"a name of 1 to {_LONGEST_NAME} printable characters"
        )
    if missing or extra:
        lacks = [f"lacks {_some(missing)}"] if missing else []
        has = [f"has {_some(extra)} too many"] if extra else []
        raise DataError(
            f"{path}, line 1: {' and '.join(lacks + has)} (needs {len(expected)} columns); is it "
            "another file?"
        )


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest


def _refuse_twice(table: CsvTable) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(table.text[_ID]):
        if first.setdefault(name, row) != row:
            raise DataError(
                f"{table.at(row)}: {_ID} {name} stands on line {table.lines[first[name]]} already; "
                "keep one of the rows"
            )


def _refuse_shared(train: CsvTable, test: CsvTable) -> None:
    rows = {name: row for row, name in enumerate(train.text[_ID])}
    for row, name in enumerate(test.text[_ID]):
        if name in rows:
            raise DataError(
                f"{test.at(row)}: {_ID} {name} stands in {train.path.name}, line "
                f"{train.lines[rows[name]]}, too; a row is for training or for testing"
            )


def _join(features: CsvTable, other: CsvTable) -> NDArray[np.int64]:
    """For each row of features its row in ``other``, which must have the same ids."""
    _refuse_twice(other)
    rows = {name: row for row, name in enumerate(other.text[_ID])}
    for here, there in ((features, other), (other, features)):
        known = set(there.text[_ID])
        lost = [row for row, name in enumerate(here.text[_ID]) if name not in known]
        if lost:
            raise DataError(
                f"{there.path}: lacks {len(lost)} {_ID} of {here.path.name}, the first "
                f"{here.text[_ID][lost[0]]} of line {here.lines[lost[0]]}; take both files from "
                "one download"
            )
    return np.array([rows[name] for name in features.text[_ID]], np.int64)


def _feature_rows(part: Responses) -> Iterator[Iterable[object]]:
    """Values of four decimals, as published, come from a table: 20 million take long otherwise."""
    names = [{code: name for name, code in values.items()} for values in _CATEGORIES.values()]
    steps = np.rint(part.inputs[:, 3:].astype(np.float64) * 1e4)
    exact = bool((np.abs(steps) <= 1e5).all()) and np.array_equal(
        (steps / 1e4).astype(np.float32), part.inputs[:, 3:]
    )
    words = _words()
    for i, row, step in zip(part.ids, part.inputs, steps, strict=True):
        given = [names[column][float(row[column])] for column in range(3)]
        values = words[step.astype(np.int64) + 100_000] if exact else map(str, row[3:])
        yield (i, *given, *values)


@cache
def _words() -> NDArray[np.object_]:
    """-10.0, -9.9999, …, 10.0."""
    return np.array([str(k / 1e4) for k in range(-100_000, 100_001)], object)
