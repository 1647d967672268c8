"""The folder a run leaves: what may be published at its top, what ε does not cover in private/."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsgd_torch.errors import RunError


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; every file is replaced atomically, so a crash leaves the old one."""

    path: Path

    @property
    def private(self) -> Path:
        return self.path / "private"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def checkpoints(self) -> Path:
        return self.private / "checkpoints"

    @property
    def is_free(self) -> bool:
        """Whether nothing is there, or an empty folder."""
        empty_folder = self.path.is_dir() and not any(self.path.iterdir())
        return empty_folder or not self.path.exists()

    def refuse_occupied(self) -> None:
        """Refuse a path that is not a new or empty folder, before any work is done for it."""
        if not self.is_free:
            what = "is not empty" if self.path.is_dir() else "is a file"
            raise RunError(f"out = {self.path}: {what}; choose a new folder, or --resume a run")
        above = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise RunError(f"out = {self.path}: {above} cannot be written; choose another folder")

    def free(self) -> RunFolder:
        """This folder, or the first free one of NAME-2, NAME-3, …: what was trained is not lost."""
        numbered = (self.path.with_name(f"{self.path.name}-{n}") for n in itertools.count(2))
        folder = next(
            f for f in map(RunFolder, itertools.chain([self.path], numbered)) if f.is_free
        )
        if folder != self:
            warnings.warn(f"{self.path} is taken: saved to {folder.path}", stacklevel=3)
        return folder

    def create(self) -> None:
        """Make the folder; refuses one that holds anything."""
        try:
            self.refuse_occupied()
            self.path.mkdir(parents=True, exist_ok=True)
            self.private.mkdir(mode=0o700)
            self.checkpoints.mkdir()
        except OSError as error:
            raise RunError(
                f"out = {self.path}: cannot be written ({error.strerror}); choose another folder"
            ) from error

    def read_json(self, name: str) -> Any:
        if not self.path.is_dir():
            raise RunError(f"resume = {self.path}: there is no such folder; name that of a run")
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path / name}: cannot be read ({error}); to resume, name the folder of a run"
            ) from error

    def write_json(self, name: str, data: Any) -> None:
        self.write_text(name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Any]) -> None:
        self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def read_lines(self, name: str) -> list[Any]:
        path = self.path / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_text(self, name: str, text: str) -> None:
        write_durably(self.path / name, text.encode())


def write_durably(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, then rename over: readers see the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames inside ``path`` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
