"""Texts with what is known of each: its label and who wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError, shown

_SPLIT_SEED = 0  # so that every run agrees on who is private
_LONGEST_NAME = 100  # characters of a label, which is published
_FEWEST = 5


@dataclass(frozen=True)
class Columns:
    """Which column holds what; None: that is not asked for."""

    text: str
    label: str | None
    author: str
    author_required: bool


@dataclass(frozen=True)
class Texts:
    """n texts; a label and an author for each, or None where there are none."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    authors: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, where: NDArray[np.int64]) -> Texts:
        """The texts of these numbers."""
        labels, authors = (
            None if column is None else tuple(column[i] for i in where)
            for column in (self.labels, self.authors)
        )
        return Texts(tuple(self.texts[i] for i in where), labels, authors)

    def split(self) -> tuple[Texts, Texts]:
        """(training, test): one author in five is tested on, or one text where none is named.

        Raises:
            DataError: fewer than five of them.
        """
        ids = np.arange(len(self)) if self.authors is None else codes_of(self.authors)
        count = int(ids.max(initial=-1)) + 1
        if count < _FEWEST:
            what = "texts" if self.authors is None else "authors"
            raise DataError(
                f"data_dir: has {count} {what}; needs {_FEWEST} at least, to split them, or a "
                "test set beside train"
            )
        order = np.random.default_rng(_SPLIT_SEED).permutation(count)
        tested = np.isin(ids, order[: count // 5])
        return self.rows(np.flatnonzero(~tested)), self.rows(np.flatnonzero(tested))


def codes_of(ids: Sequence[str]) -> NDArray[np.int64]:
    """A whole number for each id, alike for the same.

    >>> codes_of(["ann", "bob", "ann"])
    array([0, 1, 0])
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in ids], dtype=np.int64)


def texts_of(
    table: Mapping[str, Sequence[Any]],
    columns: Columns,
    source: str,
    place: Callable[[int], str],
) -> Texts:
    """The texts of a table, held to what each column must be.

    Args:
        source: names the table in a message, ``place`` one of its rows.

    Raises:
        DataError: a column that is missing, or a row without what it must have, by both names.
    """
    wanted = [columns.text, *([columns.label] if columns.label else [])]
    if columns.author_required:
        wanted.append(columns.author)
    for name in wanted:
        if name not in table:
            there = ", ".join(map(shown, table)) or "none"
            flag = {columns.text: "--text-column", columns.label: "--label-column"}.get(
                name, "--author-column"
            )
            raise DataError(f"{source}: has no column {name} (but {there}); name it with {flag}")
    texts = table[columns.text]
    if not len(texts):
        raise DataError(f"{source}: holds no row; add texts")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise DataError(
                f"{place(row)}, {columns.text}: is {kind}, not text; correct it, or take it out"
            )
    labels = authors = None
    if columns.label:
        labels = _names(table[columns.label], columns.label, place)
        _refuse_odd_labels(labels, columns.label, place)
    if columns.author in table:
        authors = _names(table[columns.author], columns.author, place)
    return Texts(tuple(texts), labels, authors)


def _names(values: Sequence[Any], column: str, place: Callable[[int], str]) -> tuple[str, ...]:
    """Text of each, which must be text that is not empty, or a whole number."""
    found = []
    for row, value in enumerate(values):
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, str | int) or value == "":
            given = "empty" if value in ("", None) else f"of type {type(value).__name__}"
            raise DataError(
                f"{place(row)}, {column}: is {given}, not text or a whole number; correct it, or "
                "take the row out"
            )
        found.append(str(value))
    return tuple(found)


def _refuse_odd_labels(labels: tuple[str, ...], column: str, place: Callable[[int], str]) -> None:
    for row, label in enumerate(labels):
        if not label.isprintable() or len(label) > _LONGEST_NAME:
            raise DataError(
                f"{place(row)}, {column}: names a label and is published; give it at most "
                f"{_LONGEST_NAME} printable characters"
            )
