"""Texts from files: CSV, JSON lines, Parquet, plain text, or a saved Hugging Face data set."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpsgd_torch.errors import DataError, told
from dpsgd_torch.tasks.text.records import Columns, Texts, texts_of

Table = dict[str, list[Any]]
Place = Callable[[int], str]
_FORMS = (
    "a file .csv, .jsonl or .parquet, or a folder of train.* (and test.*) of these, of .txt files "
    "(LABEL/AUTHOR.txt, a text a paragraph), or one from datasets' save_to_disk"
)
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")


def read_texts(path: Path, columns: Columns) -> tuple[Texts, Texts | None]:
    """(training texts, test texts or None) in a file or folder.

    Raises:
        DataError: what cannot be read, with file, row, column and what to do.
        ModuleNotFoundError: pyarrow or datasets, where the file needs it.
    """
    if path.is_file():
        return _table(path, columns), None
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        return _saved_dataset(path, columns)
    names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    tables = [name for name in names if Path(name).suffix.lower() in _READERS]
    train = [name for name in tables if Path(name).stem == "train"] or tables
    if len(train) > 1:
        raise DataError(
            f"data_dir = {path}: has {train[0]} and {train[1]}; call one train and one test, or "
            "name a file"
        )
    if train:
        test = [name for name in tables if Path(name).stem == "test" and name != train[0]]
        return _table(path / train[0], columns), (_table(path / test[0], columns) if test else None)
    return _plain(path, columns), None


def _table(path: Path, columns: Columns) -> Texts:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"data_dir = {path}: is of no known kind; needs {_FORMS}")
    try:
        table, place = reader(path)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix[1:]} ({told(error)}); save it as UTF-8 text"
        ) from error
    return texts_of(table, columns, str(path), place)


def _csv(path: Path) -> tuple[Table, Place]:
    lines: list[int] = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = [name.strip() for name in next(rows, [])]
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise DataError(f"{path}, line 1: has the column {twice} twice; keep one of them")
        table: Table = {name: [] for name in header}
        before = rows.line_num
        for cells in rows:
            line, before = before + 1, rows.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {line}: has {len(cells)} cells where the header has "
                    f"{len(header)}; quote texts with commas"
                )
            lines.append(line)
            for name, cell in zip(header, cells, strict=True):
                table[name].append(cell)
    return table, lambda row: f"{path}, line {lines[row]}"


def _json_lines(path: Path) -> tuple[Table, Place]:
    objects: list[dict[str, Any]] = []
    lines: list[int] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise DataError(f"{path}, line {number}: is no JSON object; write one a line")
            objects.append(found)
            lines.append(number)
    names = dict.fromkeys(name for found in objects for name in found)
    table: Table = {name: [found.get(name) for found in objects] for name in names}
    return table, lambda row: f"{path}, line {lines[row]}"


def _parquet(path: Path) -> tuple[Table, Place]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path).to_pydict()
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{path}: cannot be read as Parquet ({told(error)}); write it anew"
        ) from error
    return table, lambda row: f"{path}, row {row}"


_READERS: dict[str, Callable[[Path], tuple[Table, Place]]] = {
    ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet,
}  # fmt: skip


def _saved_dataset(path: Path, columns: Columns) -> tuple[Texts, Texts | None]:
    """What ``datasets.Dataset.save_to_disk`` wrote, or a DatasetDict's train and test."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever a damaged folder makes it raise
        raise DataError(
            f"data_dir = {path}: cannot be read as a saved data set ({told(error)}); save it anew "
            "with save_to_disk"
        ) from error
    parts = found if isinstance(found, datasets.DatasetDict) else {"train": found}
    if "train" not in parts:
        raise DataError(
            f"data_dir = {path}: has {', '.join(parts) or 'nothing'}, and no train; name the "
            "folder of one of them, as in data_dir/NAME"
        )

    def texts(name: str) -> Texts:
        part, source = parts[name], f"{path}, {name}"
        wanted = (columns.text, columns.label, columns.author)
        table: Table = {c: list(part[c]) if c in wanted else [] for c in part.features}
        label = columns.label
        names = getattr(part.features.get(label), "names", None)
        if label and names:
            labels = table[label]
            table[label] = [names[i] if i is not None and i >= 0 else None for i in labels]
        return texts_of(table, columns, source, lambda row: f"{source}, row {row}")

    return texts("train"), texts("test") if "test" in parts else None


def _plain(path: Path, columns: Columns) -> Texts:
    """Paragraphs of .txt files: the file is the author, and the folder it is in the label."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else []
    if not files:
        there = "is no such file or folder" if not path.exists() else "holds none"
        raise DataError(f"data_dir = {path}: {there}; needs {_FORMS}")
    rows: list[tuple[str, str, str]] = []
    for file in files:
        name = file.relative_to(path)
        if columns.label and len(name.parts) < 2:
            raise DataError(
                f"{file}: is in no folder that names its label; move it to LABEL/{name}, or pass "
                "--objective language-model"
            )
        try:
            content = file.read_text(encoding="utf-8-sig")
        except (UnicodeDecodeError, OSError) as error:
            raise DataError(
                f"{file}: cannot be read ({told(error)}); save it as UTF-8 text"
            ) from error
        found = [part.strip() for part in _PARAGRAPHS.split(content)]
        rows += [(text, name.parts[0], str(name)) for text in found if text]
    texts, labels, authors = zip(*rows, strict=True) if rows else ((), (), ())
    table: Table = {columns.text: [*texts], columns.author: [*authors]}
    if columns.label:
        table[columns.label] = [*labels]
    return texts_of(table, columns, str(path), lambda row: f"{path / rows[row][2]}")
