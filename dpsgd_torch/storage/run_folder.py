"""The folder a run leaves: what may be published at its top, what ε does not cover in private/."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsgd_torch.errors import RunError
from dpsgd_torch.storage import beginning
from dpsgd_torch.storage.beginning import sync_folder as sync_folder
from dpsgd_torch.storage.sealed import read_sealed, sealed

_STREAMS = "private/streams.json"


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
        """Whether nothing is there, or an empty folder, or a run stopped before it was charged."""
        if self.path.is_dir():
            return not beginning.files(self.path) or self.is_begun_only
        return not self.path.exists()

    @property
    def is_begun_only(self) -> bool:
        """Whether a run was stopped there before anything could be charged."""
        return beginning.is_begun_only(self.path)

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

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """Make the folder, or take one in which nothing was charged; refuse any other.

        Inside, everything that a resumed run needs is written, the ledger too; what stops there
        may be begun again. After it charges may follow.
        """
        try:
            self.refuse_occupied()
            self.path.mkdir(parents=True, exist_ok=True)
            if not beginning.claim(self.path):
                raise RunError(
                    f"out = {self.path}: another process begins a run there; choose a new folder"
                )
            self.checkpoints.mkdir()
        except OSError as error:
            raise RunError(
                f"out = {self.path}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        try:
            yield
            beginning.unmark(self.path)
        finally:
            beginning.let_go(self.path)

    def create(self) -> None:
        """Make the folder; refuses one that holds anything."""
        with self.beginning():
            pass

    def refuse_begun_only(self) -> None:
        """Refuse to resume what was stopped before anything was charged."""
        if self.is_begun_only:
            raise RunError(
                f"run {self.path}: was stopped before anything was charged, so there is nothing to "
                "resume; begin it again, in the same folder if you like"
            )

    def refuse_links(self) -> None:
        """Refuse a folder with a symbolic link in it: what is written there would go elsewhere."""
        for each in self.path.rglob("*"):
            if each.is_symlink():
                raise RunError(f"{each}: is a symbolic link; put what it names in its place")

    def read_json(self, name: str) -> Any:
        if not self.path.is_dir():
            raise RunError(f"resume = {self.path}: there is no such folder; name that of a run")
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"{self.path / name}: cannot be read ({error}); to resume, name the folder of a run"
            ) from error

    def write_json(self, name: str, data: Any) -> None:
        self.write_text(name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def read_sealed(self, name: str) -> dict[str, Any]:
        """What ``write_sealed`` wrote; damage is refused."""
        return read_sealed(self.path / name)

    def write_sealed(self, name: str, data: Mapping[str, Any]) -> None:
        """JSON that will be read back, with its own digest in it."""
        self.write_json(name, sealed(data))

    def read_root(self) -> int:
        """The key of the random streams.

        Raises:
            RunError: it is damaged or gone, without which the run cannot go on.
        """
        root = self.read_sealed(_STREAMS).get("root")
        if not (isinstance(root, str) and re.fullmatch("[0-9a-f]+", root)):
            raise RunError(
                f"{self.path / _STREAMS}: holds no stream key; restore it: without it the run "
                "cannot go on"
            )
        return int(root, 16)

    def write_root(self, root: int) -> None:
        content = json.dumps(sealed({"root": f"{root:x}"}), indent=2) + "\n"
        write_durably(self.path / _STREAMS, content.encode(), mode=0o600)

    def write_lines(self, name: str, rows: Iterable[Any]) -> None:
        self.write_text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def read_lines(self, name: str) -> list[Any]:
        path = self.path / name
        if not path.exists():
            return []
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: cannot be read ({error}); restore it") from error

    def write_text(self, name: str, text: str) -> None:
        write_durably(self.path / name, text.encode())


def write_durably(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write beside, flush to disk, then rename over: readers see the old file or the new one.

    Args:
        mode: of the file from its first byte, but for what the process masks.

    Raises:
        RunError: the disk is full, or takes nothing.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # it might be a link to somewhere else
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # half of it only fills the disk
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); mend that, then resume"
        ) from error
