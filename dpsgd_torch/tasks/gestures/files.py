"""Recorded gestures from a folder of CSV files, one a gesture, its name the label."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError, told

AXES = ("aX", "aY", "aZ", "gX", "gY", "gZ")
SAMPLES = 119
LIMITS = np.array([4.0] * 3 + [2000.0] * 3)  # g, and degrees a second: where the sensor saturates
_ANOTHER_UNIT = 2.0  # times the limit: no sensor overshoots so far
_TO_G = "divide m/s² by 9.80665, or thousandths of g by 1000"
_HEAVY = 5.0  # g, in half of a file's rows; a board in a hand feels 1 g, or 9.8 m/s²
_LONGEST_NAME = 100  # characters


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
        folder: holds NAME.csv with columns aX … gZ and 119 rows a recording.
        partial: "drop" leaves out rows after the last whole recording; "refuse" refuses them.

    Raises:
        DataError: what cannot be read, with file, line and what to do.
    """
    files = folder.iterdir() if folder.is_dir() else []
    paths = sorted(path for path in files if path.suffix.lower() == ".csv")
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
    motions = [_read(path, partial) for path in paths]
    gesture = np.repeat(np.arange(len(paths)), [len(m) for m in motions])
    motion = np.concatenate(motions)
    kept = _without_duplicates(motion, gesture, paths)
    return Recordings(motion[kept], gesture[kept], tuple(path.stem for path in paths))


def _read(path: Path, partial: str) -> NDArray[np.float64]:
    """(recordings, 119, 6) of one file."""
    values = _numbers(path)
    whole, rest = divmod(len(values), SAMPLES)
    if rest and partial != "drop":
        raise DataError(
            f"{path}, line {_line(path, whole * SAMPLES)}: {len(values)} rows are {whole} "
            f"recordings of {SAMPLES} and {rest} rows over; complete the last, or leave it out "
            "with --partial drop"
        )
    if rest:
        warnings.warn(f"{path}: the last {rest} rows are dropped", stacklevel=2)
    if not whole:
        raise DataError(f"{path}: holds no whole recording of {SAMPLES} rows; record some, or "
                        "take the file away")  # fmt: skip
    return _in_range(path, values[: whole * SAMPLES]).reshape(whole, SAMPLES, len(AXES))


def _numbers(path: Path) -> NDArray[np.float64]:
    """The six columns as they stand, (rows, 6); no NaN."""
    import pandas as pd

    options: dict[str, Any] = {
        "encoding": "utf-8-sig", "skipinitialspace": True, "skip_blank_lines": True
    }  # fmt: skip
    try:
        header = [str(name).strip() for name in pd.read_csv(path, nrows=0, **options).columns]
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: is empty; record a gesture, or take it away") from error
    except (UnicodeDecodeError, OSError, pd.errors.ParserError) as error:
        raise DataError(
            f"{path}: cannot be read as CSV ({told(error)}); save it as UTF-8 text"
        ) from error
    missing = [name for name in AXES if name not in header]
    if missing:
        raise DataError(
            f"{path}, line 1: lacks {', '.join(missing)}; the first line must be {','.join(AXES)}"
        )
    twice = [name for name in AXES if header.count(name) + header.count(f"{name}.1") > 1]
    if twice:
        raise DataError(f"{path}: has the column {twice[0]} twice; keep one of them")
    extra = [name for name in header if name not in AXES and not name.startswith("Unnamed: ")]
    if extra:
        warnings.warn(f"{path}: columns {', '.join(extra)} are left out", stacklevel=3)
    _refuse_wide_or_binary(path, len(header))
    header = [name if name in AXES else f"{i}: {name}" for i, name in enumerate(header)]
    options |= {"names": header, "header": 0, "index_col": False, "usecols": list(AXES)}
    try:
        table = pd.read_csv(path, dtype=np.float64, **options)
    except pd.errors.ParserError as error:
        odd = (i for i, text in enumerate(_lines(path), start=1) if text.count('"') % 2)
        raise DataError(
            f"{path}, line {next(odd, 1)}: cannot be read as CSV ({told(error)}); close the "
            "quote, or take the recording out"
        ) from error
    except ValueError:
        table = pd.read_csv(path, dtype=str, **options)
        table = table.apply(pd.to_numeric, errors="coerce")
    values = table[list(AXES)].to_numpy(np.float64)
    if not np.isfinite(values).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        line = _line(path, row)
        raise DataError(
            f"{path}, line {line}, {AXES[column]}: is not a number; correct it, or take "
            "the recording out"
        )
    return values


def _refuse_wide_or_binary(path: Path, cells: int) -> None:
    """Lines that pandas takes amiss: of cells beyond the header's, as decimal commas make, it drops
    the last, and bytes that are no text it may meet only after megabytes."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, text in enumerate(file, start=1):
            if not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
                raise DataError(f"{path}, line {number}: is not UTF-8; save it as UTF-8 text")
            if text.count(",") >= cells and text.rstrip(", \t\n").count(",") >= cells:
                raise DataError(
                    f"{path}, line {number}: has more than the header's {cells} cells; "
                    "write decimals with a point, or take the recording out"
                )


def _in_range(path: Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.abs(values)
    far = np.argwhere(size > _ANOTHER_UNIT * LIMITS)
    if len(far):
        row, column = (int(i) for i in far[0])
        unit, hint = ("g", _TO_G) if column < 3 else ("°/s", "convert to degrees a second")
        raise DataError(
            f"{path}, line {_line(path, row)}, {AXES[column]} = {values[row, column]:g}: is beyond "
            f"±{LIMITS[column]:g} {unit}, so in another unit; {hint}"
        )
    typical = float(np.median(np.linalg.norm(values[:, :3], axis=1)))
    if typical > _HEAVY:
        raise DataError(
            f"{path}, line {_line(path, 0)}: acceleration is {typical:.3g} in half of the rows, "
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
    motion: NDArray[np.float64], gesture: NDArray[np.int64], paths: list[Path]
) -> NDArray[np.int64]:
    """Indices of the recordings to keep."""
    flat = np.ascontiguousarray(motion.reshape(len(motion), -1))
    keys = flat.view(np.dtype((np.void, flat.shape[1] * flat.itemsize))).ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    original = first[which]
    for index in np.flatnonzero(gesture != gesture[original]):
        places = [_place(int(i), gesture, paths) for i in (original[index], index)]
        raise DataError(
            f"{places[1]}: is the recording of {places[0]}, under another gesture; take out the "
            "wrong one"
        )
    copies = len(motion) - len(first)
    if copies:
        copy = int(np.flatnonzero(original != np.arange(len(motion)))[0])
        warnings.warn(
            f"{copies} recordings stand twice and are taken once, the first of them "
            f"{_place(copy, gesture, paths)}",
            stacklevel=2,
        )
    return np.sort(first)


def _place(index: int, gesture: NDArray[np.int64], paths: list[Path]) -> str:
    path = paths[int(gesture[index])]
    within = index - int(np.searchsorted(gesture, gesture[index]))
    return f"{path}, line {_line(path, within * SAMPLES)}"


def _line(path: Path, row: int) -> int:
    """The line in the file on which a row of the table stands, counted from 1."""
    filled = -1  # the header is not a row
    for number, text in enumerate(_lines(path), start=1):
        filled += bool(text.strip())
        if filled == row + 1:
            return number
    return number + 1


def _lines(path: Path) -> list[str]:
    """Ended by CR, LF or both, as pandas has it; splitlines knows seven more ends."""
    return path.read_text(encoding="utf-8-sig").split("\n")
