"""Recorded gestures from a folder of CSV files, one a gesture, its name the label."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.gestures.lines import AXES, Lines, read_lines

SAMPLES = 119
LIMITS = np.array([4.0] * 3 + [2000.0] * 3)  # g, and degrees a second: where the sensor saturates
_ANOTHER_UNIT = 2.0  # times the limit: no sensor overshoots so far
_TO_G = "divide m/s² by 9.80665, or thousandths of g by 1000"
_HEAVY = 5.0  # g, in half of a file's rows; a board in a hand feels 1 g, or 9.8 m/s²
_LONGEST_NAME = 100  # characters
_NOT_DATA = (".", "~$")  # what systems and spreadsheets put beside a file


@dataclass(frozen=True)
class Recordings:
    """Recordings, (n, 119, 6) in g and degrees a second; the gesture of each; gestures by name."""

    motion: NDArray[np.float64]
    gesture: NDArray[np.int64]
    names: tuple[str, ...]


def read_gestures(folder: Path, partial: str = "refuse") -> Recordings:
    """All recordings in a folder's CSV files.

    Values a little beyond the sensor's range are clamped to it, as the board would: a model must
    not be trained on inputs that it can never be given. A recording that stands twice under one
    gesture is taken once: as two records it would be protected half as well, and it could be both
    trained on and tested with.

    Args:
        folder: holds NAME.csv with columns aX … gZ and 119 rows a recording, a blank line between
            recordings.
        partial: "drop" leaves out blocks that are no whole number of recordings, and only those;
            "refuse" refuses the first of them.

    Raises:
        DataError: what cannot be read, with file, line and what to do.
    """
    entries = folder.iterdir() if folder.is_dir() else []
    csvs = (path for path in entries if path.suffix.lower() == ".csv")
    paths = sorted(path for path in csvs if not path.name.startswith(_NOT_DATA))
    if len(paths) < 2:
        found = f"{paths[0].name} alone" if paths else "no CSV file"
        raise DataError(
            f"data_dir = {folder}: has {found}; needs a file a gesture, two at least, such as "
            "wave.csv and punch.csv"
        )
    for path in paths:
        if not path.stem.isprintable() or len(path.stem) > _LONGEST_NAME:
            raise DataError(
                f"data_dir = {folder}: {path.name!a} names a gesture and is published; give the "
                f"file a name of at most {_LONGEST_NAME} printable characters"
            )
    files = [_read(path, partial) for path in paths]
    gesture = np.repeat(np.arange(len(paths)), [len(file.motion) for file in files])
    motion = np.concatenate([file.motion for file in files])
    kept = _without_duplicates(motion, gesture, files)
    return Recordings(motion[kept], gesture[kept], tuple(path.stem for path in paths))


@dataclass(frozen=True)
class _Filed:
    """A file's recordings, (n, 119, 6), and the line on which each row stands, (n, 119)."""

    path: Path
    motion: NDArray[np.float64]
    lines: NDArray[np.int64]

    def place(self, recording: int) -> str:
        return f"{self.path}, line {self.lines[recording, 0]}"


def _read(path: Path, partial: str) -> _Filed:
    found = read_lines(path)
    whole = _whole_blocks(path, found, partial)
    extra = [name for name in found.header if name and name not in AXES]
    if extra:
        warnings.warn(f"{path}: columns {', '.join(extra)} are left out", stacklevel=3)
    bad = next((row for row in found.amiss if whole[row]), None)
    if bad is not None:
        raise DataError(f"{path}, line {found.numbers[bad]}: {found.amiss[bad]}")
    kept = np.flatnonzero(whole)
    if not len(kept):
        raise DataError(f"{path}: holds no whole recording of {SAMPLES} rows; record some, or "
                        "take the file away")  # fmt: skip
    lines = np.array(found.numbers)[kept]
    values = _in_range(path, _numbers(path, found, kept, lines), lines)
    shape = (len(kept) // SAMPLES, SAMPLES)
    return _Filed(path, values.reshape(*shape, len(AXES)), lines.reshape(shape))


def _whole_blocks(path: Path, found: Lines, partial: str) -> NDArray[np.bool_]:
    """(rows,) whether each belongs to a block of whole recordings, and is taken."""
    starts = np.array(found.starts)
    counts = np.diff(starts)
    places = [f"line {found.numbers[start]}" for start in found.starts[:-1]]
    over = np.flatnonzero(counts % SAMPLES)
    taken = np.repeat(counts % SAMPLES == 0, counts)
    if len(over) and partial != "drop":
        if found.amiss:  # the likelier cause
            return np.ones(len(taken), bool)
        at = int(over[0])
        raise DataError(f"{path}, {places[at]}: {_torn(counts, at, found)}")
    if len(over):
        names = ", ".join(f"{counts[at]} rows from {places[at]}" for at in over[:3])
        more = f" and {len(over) - 3} blocks more" if len(over) > 3 else ""
        warnings.warn(f"{path}: dropped as no whole recording: {names}{more}", stacklevel=3)
    long = np.flatnonzero((counts > SAMPLES) & (counts % SAMPLES == 0))
    if len(long):
        at = int(long[0])
        more = f"; so are {len(long) - 1} blocks more" if len(long) > 1 else ""
        warnings.warn(
            f"{path}, {places[at]}: {counts[at]} rows without a blank line are cut into "
            f"{counts[at] // SAMPLES} recordings of {SAMPLES}{more}",
            stacklevel=3,
        )
    return taken


def _torn(counts: NDArray[np.int64], at: int, found: Lines) -> str:
    """What is wrong with a block that is no whole number of recordings."""
    count = int(counts[at])
    if count > SAMPLES:
        return (
            f"{count} rows without a blank line are {count // SAMPLES} recordings of {SAMPLES} and "
            f"{count % SAMPLES} rows over, and which is torn cannot be told; put a blank line "
            "between recordings, or leave all of these out with --partial drop"
        )
    if at + 1 < len(counts) and count + counts[at + 1] == SAMPLES:
        after = found.numbers[found.starts[at + 1] - 1]
        return (
            f"{count} rows, and {counts[at + 1]} after a blank line, are one recording of "
            f"{SAMPLES} cut in two; take out what follows line {after}"
        )
    return (
        f"a block of {count} rows is no recording of {SAMPLES}; complete it, or leave it out with "
        "--partial drop"
    )


def _numbers(
    path: Path, found: Lines, kept: NDArray[np.int64], lines: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The six columns of the rows ``kept``, (rows, 6); no NaN."""
    import pandas as pd

    names = [name if name in AXES else f"{i}: {name}" for i, name in enumerate(found.header)]
    options: dict[str, Any] = {
        "sep": found.separator, "names": names, "header": None, "index_col": False,
        "usecols": list(AXES), "skipinitialspace": True, "skip_blank_lines": False, "quoting": 3,
    }  # fmt: skip
    text = "\n".join([found.rows[row] for row in kept])
    try:
        table = pd.read_csv(io.StringIO(text), dtype=np.float64, decimal=found.decimal, **options)
    except ValueError:
        table = pd.read_csv(io.StringIO(text), dtype=str, **options)
        if found.decimal == ",":  # a point is then for thousands, or a mistake
            table = table.apply(lambda column: column.str.translate({44: ".", 46: ","}))
        table = table.apply(pd.to_numeric, errors="coerce")
    values = table[list(AXES)].to_numpy(np.float64)
    if not np.isfinite(values).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        comma = " with a decimal comma, as those before it" if found.decimal == "," else ""
        raise DataError(
            f"{path}, line {lines[row]}, {AXES[column]}: is not a number{comma}; correct it, or "
            "take the recording out"
        )
    return values


def _in_range(
    path: Path, values: NDArray[np.float64], lines: NDArray[np.int64]
) -> NDArray[np.float64]:
    size = np.abs(values)
    far = np.argwhere(size > _ANOTHER_UNIT * LIMITS)
    if len(far):
        row, column = (int(i) for i in far[0])
        unit, hint = ("g", _TO_G) if column < 3 else ("°/s", "convert to degrees a second")
        raise DataError(
            f"{path}, line {lines[row]}, {AXES[column]} = {values[row, column]:g}: is beyond "
            f"±{LIMITS[column]:g} {unit}, so in another unit; {hint}"
        )
    typical = float(np.median(np.linalg.norm(values[:, :3], axis=1)))
    if typical > _HEAVY:
        raise DataError(
            f"{path}, line {lines[0]}: acceleration is {typical:.3g} in half of the rows, "
            f"where gravity alone is 1 g, so in another unit; {_TO_G}"
        )
    beyond = int((size > LIMITS).sum())
    if beyond:
        warnings.warn(
            f"{path}: {beyond} values beyond ±4 g or ±2000 °/s are clamped, as on the board",
            stacklevel=3,
        )
    return np.clip(values, -LIMITS, LIMITS)


def _without_duplicates(
    motion: NDArray[np.float64], gesture: NDArray[np.int64], files: list[_Filed]
) -> NDArray[np.int64]:
    """Indices of the recordings to keep."""
    places = [file.place(index) for file in files for index in range(len(file.motion))]
    flat = np.ascontiguousarray(motion.reshape(len(motion), -1))
    keys = flat.view(np.dtype((np.void, flat.shape[1] * flat.itemsize))).ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    original = first[which]
    for index in np.flatnonzero(gesture != gesture[original]):
        raise DataError(
            f"{places[index]}: is the recording of {places[original[index]]}, under another "
            "gesture; take out the wrong one"
        )
    copies = len(motion) - len(first)
    if copies:
        copy = int(np.flatnonzero(original != np.arange(len(motion)))[0])
        warnings.warn(
            f"{copies} recordings stand twice and are taken once, the first of them {places[copy]}",
            stacklevel=2,
        )
    return np.sort(first)
