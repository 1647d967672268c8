"""A CSV file as text columns and a block of numbers; what is wrong has a file, line and column."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError, told

_SHOWN = 40  # characters of a cell that is refused


@dataclass(frozen=True, kw_only=True)
class CsvTable:
    """Rows of one file: each text column by name, the other columns as (rows, numbers) float32.

    ``lines`` says on which line of the file each row stands, counted from 1.
    """

    path: Path
    text: dict[str, tuple[str, ...]]
    numbers: NDArray[np.float32]
    number_columns: tuple[str, ...]
    lines: NDArray[np.int64]

    def at(self, row: int) -> str:
        """Where a row stands: file and line."""
        return f"{self.path}, line {self.lines[row]}"


def read_header(path: Path, move: str) -> tuple[str, ...]:
    """The names in a file's first line.

    Args:
        move: what to do where the file is missing.

    Raises:
        DataError: no such file, an empty one, one that is no text, a name that stands twice.
    """
    if not path.is_file():
        raise DataError(f"{path}: is missing; {move}")
    first = next(_lines(path), "")
    if not first.strip():
        raise DataError(f"{path}, line 1: is empty, so names no columns; download the file again")
    _refuse_binary(path, 1, first)
    header = tuple(name.strip() for name in _cells(first))
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"{path}, line 1: has the column {name} twice; keep one of them")
    return header


def read_table(
    path: Path, header: Sequence[str], text: Sequence[str], numbers: Sequence[str]
) -> CsvTable:
    """The named columns of a file whose header has been read; a number is a finite one.

    Text is taken as it stands, without the spaces around it: "None" and "NA" are names like others.

    Raises:
        DataError: a line with too few or too many cells, an empty or otherwise bad cell, bytes
            that are no text, no rows at all.
    """
    import pandas as pd

    lines = _row_lines(path, len(header))
    if not len(lines):
        raise DataError(f"{path}: has a header and no rows; download the file again")
    dtypes: dict[str, object] = dict.fromkeys(text, str) | dict.fromkeys(numbers, np.float32)
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            frame = pd.read_csv(
                path,
                names=list(header),
                header=0,
                usecols=[*text, *numbers],
                dtype=dtypes,
                encoding="utf-8-sig",
                index_col=False,
                skipinitialspace=True,
                na_filter=False,  # "None" and "NA" are names like others
            )
    except (ValueError, pd.errors.ParserError) as error:
        _refuse_first_bad_number(path, header, numbers)
        raise DataError(
            f"{path}: cannot be read as CSV ({told(error)}); download the file again"
        ) from error
    table = CsvTable(
        path=path,
        text={name: tuple(str(cell).strip() for cell in frame[name]) for name in text},
        numbers=frame[list(numbers)].to_numpy(np.float32),
        number_columns=tuple(numbers),
        lines=lines,
    )
    if len(frame) != len(lines):
        raise DataError(f"{path}: a quoted cell runs over several lines; close the quote")
    for name in text:
        if "" in table.text[name]:
            at = table.at(table.text[name].index(""))
            raise DataError(f"{at}, {name}: is empty; fill it, or take the row out")
    if not np.isfinite(table.numbers).all():
        _refuse_first_bad_number(path, header, numbers)
        row, column = (int(i) for i in np.argwhere(~np.isfinite(table.numbers))[0])
        raise DataError(f"{table.at(row)}, {numbers[column]}: is not a finite number; correct it")
    return table


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Written beside ``path``, then moved onto it: the file is whole, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _row_lines(path: Path, cells: int) -> NDArray[np.int64]:
    """The line of each row; blank lines are none. Refuses what pandas would fill up or cut off."""
    lines = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        _refuse_binary(path, number, line)
        found = len(_cells(line)) if '"' in line else line.count(",") + 1
        if found != cells:
            raise DataError(
                f"{path}, line {number}: has {found} cells where the header has {cells}; complete "
                "the row, or take it out"
            )
        lines.append(number)
    return np.array(lines[1:], np.int64)


def _refuse_binary(path: Path, number: int, line: str) -> None:
    if "\0" in line or (
        not line.isascii() and any("\udc80" <= letter <= "\udcff" for letter in line)
    ):
        raise DataError(f"{path}, line {number}: is not UTF-8 text; unpack it, or save it as such")


def _refuse_first_bad_number(path: Path, header: Sequence[str], numbers: Sequence[str]) -> None:
    places = [header.index(name) for name in numbers]
    rows = ((number, line) for number, line in enumerate(_lines(path), start=1) if line.strip())
    next(rows)  # the header
    for number, line in rows:
        cells = _cells(line)
        for place in places:
            if not _is_finite(cells[place]):
                cell = _short(cells[place].strip())
                raise DataError(
                    f"{path}, line {number}, {header[place]} = {cell!r}: must be a finite number; "
                    "correct it, or take the row out"
                )


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _lines(path: Path) -> Iterator[str]:
    """Ended by CR, LF or both, as pandas has it; a byte that is no text stays to be refused."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from (line.rstrip("\n") for line in file)


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], skipinitialspace=True), []) if '"' in line else line.split(",")


def _short(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]
