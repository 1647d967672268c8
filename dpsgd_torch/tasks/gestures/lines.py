"""Lines of a motion file, as serial monitors and spreadsheets write them: rows in blocks."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dpsgd_torch.errors import DataError

AXES = ("aX", "aY", "aZ", "gX", "gY", "gZ")
CELL = "\x1f"  # between cells that quotes or spaces parted
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", CELL: "spaces"}
_EMPTY = ' \t,;"'
_EXCELS = re.compile(r'"?sep=.{0,2}"?')  # its own first line
_STAMP = re.compile(  # "12:01:33.456 -> ", "[2026-11-29 12:01:33] ", "12:01:33:456 > "
    r"\s*\[?(\d{4}-\d\d-\d\d[ T])?\d{1,2}:\d\d:\d\d([.,:]\d{1,6})?"
    r"(\]\s*|\s*->\s*|\s*>\s*|\s+)(?![\s,;])"
)
_PLOTTERS = re.compile(r"\s*aX\s*:\s*[-\d]")


@dataclass(frozen=True)
class Lines:
    """The rows of a file as text, and what else its lines say.

    A block ends where rows are further apart than most are, or at a repeated header: a blank line
    after every row is no structure, the larger gaps between recordings are.
    """

    header: list[str]
    """Names of the columns, stripped."""
    separator: str
    decimal: str
    rows: list[str]
    numbers: list[int]
    """The line of each row in the file, counted from 1."""
    starts: list[int]
    """The first row of each block, and the count of rows."""
    amiss: dict[int, str]
    """Row → why it cannot be read."""


def read_lines(path: Path) -> Lines:
    """Sort a file's lines.

    Raises:
        DataError: no text, or no header with the six columns.
    """
    lines = _text(path).split("\n")
    filled = (i for i, line in enumerate(lines) if _unstamped(line).strip(_EMPTY))
    first = next(filled, None)
    if first is not None and _EXCELS.fullmatch(lines[first].strip()):
        first = next(filled, None)
    if first is None:
        raise DataError(f"{path}: is empty; record a gesture, or take it away")
    stamped = bool(_STAMP.match(lines[first]))
    separator, header = _header(_unstamped(lines[first]))
    _refuse_header(path, lines, first, header)
    strip = stamped or header[0] in AXES  # else a column of times may be the file's own
    split = _Split(separator, any('"' in line for line in lines) or separator == CELL)
    rows: list[str] = []
    numbers: list[int] = []
    gaps: list[int] = []
    amiss: dict[int, str] = {}
    since, stamps = 0, False
    for number, line in enumerate(lines[first + 1 :], start=first + 2):
        if strip and ":" in line and (stamp := _STAMP.match(line)):
            line, stamps = line[stamp.end() :], True
        if not line.strip(_EMPTY):
            since += 1
            continue
        if "aX" in line:
            _refuse_other_header(path, number, line, separator, header)
            since = len(lines)
            continue
        row, why = split(line, header)
        if why:
            amiss[len(rows)] = why
        rows.append(row)
        numbers.append(number)
        gaps.append(since)
        since = 0
    if stamps:
        warnings.warn(f"{path}: time stamps before rows are left out", stacklevel=4)
    usual = Counter(gaps[1:]).most_common(1)[0][0] if gaps[1:] else 0
    starts = [i for i, gap in enumerate(gaps) if i == 0 or gap > usual] + [len(rows)]
    inner = CELL if split.quoted else separator
    return Lines(header, inner, _decimal(rows, inner, header), rows, numbers, starts, amiss)


def _text(path: Path) -> str:
    """Ended by LF alone; splitlines would know seven more ends than an editor."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); allow it") from error
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # as PowerShell's > writes it
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        before = re.split(rb"\r\n|\r|\n", content[: error.start])
        raise DataError(
            f"{path}, line {len(before)}: is not UTF-8; save it as UTF-8 text"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unstamped(line: str) -> str:
    stamp = _STAMP.match(line)
    return line[stamp.end() :] if stamp else line


def _header(line: str) -> tuple[str, list[str]]:
    """The separator that finds most of the axes, and the names it parts."""
    found = {sign: [name.strip() for name in _cells(line, sign)] for sign in _SEPARATORS}
    separator = max(found, key=lambda sign: sum(name in AXES for name in found[sign]))
    return separator, found[separator]


def _cells(line: str, separator: str) -> list[str]:
    """Of one line, without the quotes around cells or around all of it."""
    if '"' not in line:
        return line.split() if separator == CELL else line.split(separator)
    stripped = line.strip()
    if stripped.count('"') == 2 and stripped[0] == stripped[-1] == '"':
        return _cells(stripped[1:-1], separator)
    if separator == CELL:
        return [cell.strip('"') for cell in line.split()]
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True))


def _refuse_header(path: Path, lines: list[str], first: int, header: list[str]) -> None:
    where, needed = f"{path}, line {first + 1}", ",".join(AXES)
    missing = [name for name in AXES if name not in header]
    if missing:
        if _PLOTTERS.match(_unstamped(lines[first])):
            raise DataError(
                f"{where}: is written for the serial plotter, each value with its name; print "
                f"{needed} once, and numbers alone after it"
            )
        later = (i for i, line in enumerate(lines) if set(AXES) <= set(_header(line)[1]))
        at = next(later, None) if len(missing) == len(AXES) else None
        if at is not None:
            raise DataError(
                f"{where}: is not the header, which stands in line {at + 1}; take out the lines "
                "before it"
            )
        raise DataError(f"{where}: lacks {', '.join(missing)}; the first line must be {needed}")
    twice = [name for name in AXES if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: has the column {twice[0]} twice; keep one of them")


def _refuse_other_header(
    path: Path, number: int, line: str, separator: str, header: list[str]
) -> None:
    """A header again is a board that began again; another one is another file."""
    names = [name for name in header if name]
    if [cell.strip() for cell in _cells(line, separator) if cell.strip()] != names:
        raise DataError(
            f"{path}, line {number}: is another header than the first; put what follows into a "
            "file of its own, or take the line out"
        )


@dataclass(frozen=True)
class _Split:
    """How a row becomes cells that one sign parts, ``CELL`` where quotes or spaces did."""

    separator: str
    quoted: bool

    def __call__(self, line: str, header: list[str]) -> tuple[str, str]:
        """The row, and what is wrong with it."""
        if "\0" in line:
            return "", "holds zero bytes, as after a power failure; take the recording out"
        if line.count('"') % 2:
            return "", "has a quote without an end; close the quote, or take the recording out"
        sign = self.separator
        if self.quoted:
            line, sign = CELL.join(_cells(line, sign)), CELL
        count = line.count(sign) + 1
        if count > len(header):
            count = line.rstrip(sign + " \t").count(sign) + 1
        if count == len(header):
            return line, ""
        if count > len(header):
            return line, (
                f"has more than the header's {len(header)} cells; write decimals with a point, or "
                "take the recording out"
            )
        needed = 1 + max(header.index(name) for name in AXES)
        if count >= needed:
            return line, ""
        others = [each for each in _SEPARATORS if each != self.separator]
        other = next((s for s in others if len(_cells(line, s)) >= needed), None)
        if other:
            return line, (
                f"has {_SEPARATORS[other]} between its cells, and the header "
                f"{_SEPARATORS[self.separator]}; write the header as the rows"
            )
        return line, (
            f"has {count} of the header's {len(header)} cells; complete it, or take the recording "
            "out"
        )


def _decimal(rows: list[str], separator: str, header: list[str]) -> str:
    """A comma where the first number that has a fraction has one."""
    if separator == ",":
        return "."
    where = [header.index(name) for name in AXES]
    for row in rows:
        cells = row.split(separator)
        for at in where:
            if at < len(cells) and (sign := re.search(r"[.,]", cells[at])):
                return sign.group()
    return "."
